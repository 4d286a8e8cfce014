package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Empty ends what the dead leader has left of its tree and waits until nothing
// of it lives, so that its ports and files are free. Call it after AwaitEnd and
// before Reap. When ctx ends first, left are those that still live; it may be
// called again. The tree is the cgroup; without one it is the session, and a
// descendant that made a session of its own is not found. The tree of an
// outside process is not ours: nothing happens. After Reap the error is ErrGone.
func (p *Process) Empty(ctx context.Context) (left []int, err error) {
	if p.kind == outside {
		return nil, nil
	}
	if p.id.Cgroup != "" {
		if err := p.control(func(int) error { return nil }); err != nil {
			return nil, err // the cgroup may be that of a replacement
		}
		return EmptyCgroup(ctx, p.id.Cgroup)
	}
	for {
		killed, err := p.killSession()
		if err != nil || len(killed) == 0 {
			return nil, err
		}
		if left := killed.await(ctx); len(left) > 0 {
			return left, fmt.Errorf("processes of the session of %d are still alive: %w", p.id.PID, context.Cause(ctx))
		}
	}
}

// KillTree sends SIGKILL to the whole tree now, and does not wait. Of an
// outside process only the leader is ended. After Reap the error is ErrGone.
func (p *Process) KillTree() error {
	var err error
	switch {
	case p.kind == outside:
	case p.id.Cgroup != "":
		// Reap does not return while control runs, so that no replacement can
		// be in the cgroup.
		err = p.control(func(int) error { return killCgroup(p.id.Cgroup) })
	default:
		var killed crew
		killed, err = p.killSession()
		killed.close()
	}
	if err != nil {
		return err
	}
	if err := p.Signal(unix.SIGKILL); !errors.Is(err, ErrGone) {
		return err
	}
	return nil
}

// killSession sends SIGKILL to the leader's group, which reaches all of it at
// once, and to those of its session in groups of their own. It returns whom it
// found alive, the leader apart. All are opened before the first one is killed:
// they may be what pins the session's id.
func (p *Process) killSession() (crew, error) {
	var found crew
	err := p.control(func(leader int) error {
		pids, err := session(p.id.PID)
		if err != nil {
			return err
		}
		if found, err = openCrew(pids, p.id.PID, leader); err != nil {
			return err
		}
		err = unix.PidfdSendSignal(leader, unix.SIGKILL, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
		if err == unix.EINVAL && p.kind == child { // Linux before 6.9; a child pins its id
			_ = unix.Kill(-p.id.PID, unix.SIGKILL)
		}
		for _, m := range found {
			_ = unix.PidfdSendSignal(m.fd, unix.SIGKILL, nil, 0) // who can not be signalled stays among the living
		}
		return nil
	})
	return found, err
}

// crew are live processes of a session, each with a pidfd to be closed.
type crew []member

type member struct{ pid, fd int }

// openCrew opens those of pids that live and certainly belong to the session of
// the leader, the leader apart.
func openCrew(pids []int, sid, leader int) (found crew, err error) {
	for _, pid := range pids {
		if pid == sid {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		switch {
		case err == unix.EMFILE || err == unix.ENFILE || err == unix.ENOMEM:
			found.close()
			return nil, fmt.Errorf("can not open process %d of the session of %d: %w", pid, sid, err)
		case err != nil: // it is gone
		case isMember(pid, fd, sid, leader):
			found = append(found, member{pid, fd})
		default:
			unix.Close(fd)
		}
	}
	return found, nil
}

// isMember: the order of the questions makes it certain. The pidfd is that of
// pid, because it is not reaped after its session was read; and the session is
// the leader's, because its id was nobody else's by then.
func isMember(pid, fd, sid, leader int) bool {
	of, err := unix.Getsid(pid)
	return err == nil && of == sid && exists(fd, 0) && pinned(leader) && !polled(fd, unix.POLLIN)
}

// await waits until all are dead and closes them. If ctx ends first it returns
// who is not.
func (c crew) await(ctx context.Context) (left []int) {
	defer c.close()
	alive := slices.Clone(c)
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 20*time.Millisecond) {
		alive = slices.DeleteFunc(alive, func(m member) bool { return polled(m.fd, unix.POLLIN) })
		if len(alive) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			for _, m := range alive {
				left = append(left, m.pid)
			}
			return left
		case <-time.After(wait):
		}
	}
}

func (c crew) close() {
	for _, m := range c {
		unix.Close(m.fd)
	}
}

// pinned tells whether the pid behind a pidfd can not be anybody else's: it is
// not reaped, or (Linux 6.9) its group still has members.
func pinned(fd int) bool {
	return exists(fd, 0) || exists(fd, unix.PIDFD_SIGNAL_PROCESS_GROUP)
}

// session lists the processes of the session sid.
func session(sid int) ([]int, error) {
	all, err := sessions()
	return all[sid], err
}

// sessions are the processes of the machine by the id of their session. It asks
// for each pid, which costs a system call each and no file.
func sessions() (map[int][]int, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("can not look for processes: %w", err)
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("can not look for processes: %w", err)
	}
	all := make(map[int][]int)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if sid, err := unix.Getsid(pid); err == nil {
			all[sid] = append(all[sid], pid)
		}
	}
	return all, nil
}

// Lineage is where a process comes from, for finding the tree that it is part
// of.
type Lineage struct {
	cgroup  string // "" unknown
	session int    // 0 unknown
	line    []int  // the process itself and its ancestors
}

// LineageOf reads where a process comes from. The error is ErrGone if there is
// no such process.
func LineageOf(pid int) (Lineage, error) {
	const generations = 100 // a chain that changes while it is read has an end
	var l Lineage
	for at := pid; at > 1 && len(l.line) < generations; {
		parent, err := parentOf(at)
		if err != nil {
			if at == pid {
				return Lineage{}, err
			}
			break // an ancestor ended meanwhile
		}
		l.line = append(l.line, at)
		at = parent
	}
	if dir, err := cgroupOf(pid); err == nil {
		l.cgroup = dir
	}
	if sid, err := unix.Getsid(pid); err == nil {
		l.session = sid
	}
	return l, nil
}

// Within tells whether the process belongs to the tree of a live process: by its
// cgroup, its session or its ancestors. A descendant that made a session of its
// own and lost its parent is found by the cgroup only.
func (l Lineage) Within(id Identity) bool {
	return id.Cgroup != "" && (l.cgroup == id.Cgroup || strings.HasPrefix(l.cgroup, id.Cgroup+"/")) ||
		l.session == id.PID || slices.Contains(l.line, id.PID)
}
