package process

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// daemons calls f with a leader that has a server, in a cgroup. Without one no
// other process can be the main one.
func daemons(t *testing.T, f func(t *testing.T, leader *Process, main server)) {
	trees(t, func(t *testing.T, cgroup string) {
		s := as(t, "daemon")
		s.Cgroup = cgroup
		leader := start(t, s)
		main := servers(t, s.Log, 1)[0]
		if cgroup == "" {
			if err := leader.Follow(main.pid); err == nil {
				t.Error("a process is the main one of which it is not certain whose it is")
			}
			kill(t, main.pid) // in a session of its own nobody finds it
			return
		}
		f(t, leader, main)
	})
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// follow makes pid the main process of p.
func follow(t *testing.T, p *Process, pid int) {
	t.Helper()
	if err := p.Follow(pid); err != nil {
		t.Fatal(err)
	}
	if got := p.Main().PID; got != pid {
		t.Errorf("the main process is %d, want %d", got, pid)
	}
}

// wantExit compares an end with that of a process that is not ours to reap.
func wantExit(t *testing.T, got, want Exit) {
	t.Helper()
	if got != want && (!got.Unknown || kernelTells(t)) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The leader ends, and the end of the process is that of the main one, who gets the
// signals. Only then the leader is reaped.
func TestFollow(t *testing.T) {
	daemons(t, func(t *testing.T, p *Process, main server) {
		ended := make(chan error, 1)
		go func() { ended <- p.AwaitEnd() }()
		follow(t, p, main.pid)
		leader := p.Identity().PID
		if err := unix.Kill(leader, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		until(t, func() bool { return state(leader) == 'Z' })
		var sampler Sampler
		if u, err := sampler.Usage(p); err != nil || u.Processes != 1 {
			t.Errorf("it uses %+v, %v", u, err)
		}
		if listens, err := p.Listens(main.port); !listens || err != nil {
			t.Errorf("its port is not its own: %v", err)
		}
		if !p.Lives() || !main.serves() || len(ended) > 0 {
			t.Error("it ended with its leader")
		}
		if err := p.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if state(leader) != 'Z' {
			t.Error("the leader was reaped before the tree was empty")
		}
		wantExit(t, takeEnd(t, p), Exit{Signal: "SIGTERM"})
		if state(leader) != 0 || p.Lives() {
			t.Error("the leader is not reaped")
		}
		if err := p.Follow(main.pid); !errors.Is(err, ErrGone) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// The main one ends first: that is the end, also of the leader.
func TestFollowedEndsFirst(t *testing.T) {
	daemons(t, func(t *testing.T, p *Process, main server) {
		follow(t, p, main.pid)
		kill(t, main.pid)
		wantExit(t, takeEnd(t, p), Exit{Signal: "SIGKILL"})
		if state(p.Identity().PID) != 0 {
			t.Error("the leader goes on")
		}
	})
}

// Who has ended, or is of no tree of ours, can not be the main one. The leader can
// be again, and what is not the main one any more may end.
func TestFollowWhom(t *testing.T) {
	daemons(t, func(t *testing.T, p *Process, main server) {
		if err := p.Follow(os.Getpid()); err == nil || errors.Is(err, ErrGone) {
			t.Errorf("of a stranger: %v", err)
		}
		gone := start(t, as(t, "exit", "0"))
		takeEnd(t, gone)
		if err := p.Follow(gone.Identity().PID); !errors.Is(err, ErrGone) {
			t.Errorf("of nobody: %v", err)
		}
		ended := make(chan error, 1)
		go func() { ended <- p.AwaitEnd() }()
		follow(t, p, main.pid)
		follow(t, p, p.Identity().PID)
		kill(t, main.pid)
		until(t, func() bool { return !main.serves() })
		if !p.Lives() || len(ended) > 0 {
			t.Error("the end of who is not the main one any more counts")
		}
		if err := p.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := takeEnd(t, p); got != (Exit{}) {
			t.Errorf("got %v, want that of the leader", got)
		}
	})
}

// A leader that ended before anybody was the main one can still be followed by one,
// as long as its tree is there.
func TestFollowAfterLeader(t *testing.T) {
	daemons(t, func(t *testing.T, p *Process, main server) {
		if err := p.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := p.AwaitEnd(); err != nil {
			t.Fatal(err)
		}
		follow(t, p, main.pid)
		if !p.Lives() {
			t.Error("it counts as ended")
		}
		kill(t, main.pid)
		wantExit(t, takeEnd(t, p), Exit{Signal: "SIGKILL"})
	})
}

// AwaitEnd of a process that is let go returns, also where the leader is not waited
// for.
func TestFollowClose(t *testing.T) {
	daemons(t, func(t *testing.T, p *Process, main server) {
		follow(t, p, main.pid)
		again, err := AdoptMain(p.Identity(), p.Main())
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- again.AwaitEnd() }()
		again.Close()
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want %v", err, ErrClosed)
		}
	})
}

// As a program that has become another one does, with the leader as its child.
func TestAdoptMain(t *testing.T) {
	daemons(t, func(t *testing.T, first *Process, main server) {
		follow(t, first, main.pid)
		leader, id := first.Identity(), first.Main()
		p, err := AdoptMain(leader, id)
		if err != nil {
			t.Fatal(err)
		}
		if p.Identity() != leader || p.Main() != id || !p.Lives() {
			t.Errorf("got %+v and %+v, want %+v and %+v", p.Identity(), p.Main(), leader, id)
		}
		kill(t, main.pid)
		wantExit(t, takeEnd(t, p), Exit{Signal: "SIGKILL"})
		if state(leader.PID) != 0 {
			t.Error("the leader is not reaped")
		}
	})
}

// The main one is another process by now: nothing is left of the leader either.
func TestAdoptMainGone(t *testing.T) {
	daemons(t, func(t *testing.T, first *Process, main server) {
		follow(t, first, main.pid)
		leader, other := first.Identity(), first.Main()
		other.StartTime++
		if _, err := AdoptMain(leader, other); !errors.Is(err, ErrGone) {
			t.Errorf("got %v, want %v", err, ErrGone)
		}
		if state(leader.PID) != 0 {
			t.Error("the leader is not reaped")
		}
	})
}

// The leader has been reaped long ago, by somebody else.
func TestAdoptMainAlone(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		if cgroup == "" {
			return // there is no main one
		}
		s := as(t, "daemon")
		s.Cgroup = cgroup
		starter, leader := startByOther(t, s, "reap")
		main := servers(t, s.Log, 1)[0]
		m, err := Watch(main.pid)
		if err != nil {
			t.Fatal(err)
		}
		id := m.Identity()
		id.Cgroup = cgroup
		m.Close()
		if err := unix.Kill(leader.PID, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		takeEnd(t, starter)
		p, err := AdoptMain(leader, id)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { finish(t, p) })
		if p.Identity() != id || p.Main() != id {
			t.Errorf("got %+v and %+v, want %+v", p.Identity(), p.Main(), id)
		}
		kill(t, main.pid)
		wantExit(t, takeEnd(t, p), Exit{Signal: "SIGKILL"})
	})
}
