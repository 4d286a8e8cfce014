package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/allexgo/machine-agent/agent/state"
)

// server is who serves a socket, as the kernel tells it without a word to that one.
type server struct {
	pid int // 0: that is not known
	uid int // -1: that is not known
}

// serverOf is who serves the socket, if that is one whom we talk to.
func (l *commandLine) serverOf(socket string) server {
	s, known := peer(socket)
	if !known || s.uid != 0 && s.uid != os.Getuid() && s.uid != l.agentUID() {
		return server{uid: -1}
	}
	return s
}

// agentUID is that of --agent-user; -1 if it is not named.
func (l *commandLine) agentUID() int {
	if l.agentUser == "" {
		return -1
	}
	uid, err := uidOf(l.agentUser)
	if err != nil { // which dial has told
		return -1
	}
	return uid
}

// state judges the state directory. Who is not told as whom the agent runs supposes
// that it would be as whoever asks.
func (r *report) state(dir string, a answer) finding {
	uid, known := a.server.uid, a.server.pid != 0
	if !known {
		uid, known = r.agentUID(), r.agentUID() >= 0
	}
	if !known {
		uid = os.Geteuid()
	}
	err := state.CheckDirectory(dir, uid)
	if err == nil || errors.Is(err, fs.ErrPermission) {
		return disk(dir)
	}
	f := split(fail, aboutState, err.Error())
	if other, ok := errors.AsType[*state.OwnerError](err); ok && !known {
		f = finding{warn, aboutState, fmt.Sprintf("%s belongs to the user with uid %d, and an agentd of another one does not start", other.Directory, other.Owner),
			"if that is the agent's user, name it with --agent-user; else name another directory, or give it away with chown"}
	}
	return f
}

func (s server) finding(socket string) finding {
	what := fmt.Sprintf("%s is served by process %d", socket, s.pid)
	if s.uid >= 0 {
		what += fmt.Sprintf(" of uid %d", s.uid)
	}
	return finding{good, aboutSocket, what, ""}
}
