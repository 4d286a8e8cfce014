package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/lan/table"
)

func loopWithStore(t *testing.T) *loop {
	l := loopWithLink(t)
	var err error
	if l.Agent.Store, err = state.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, i := range l.instances {
			if i.child != nil {
				i.child.leave()
			}
		}
		l.tasks.Wait()
		l.Agent.Store.Close()
	})
	return l
}

// sleeper is a process that this test started, for registering it.
func sleeper(t *testing.T) (pid int) {
	t.Helper()
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // killed
	})
	return c.Process.Pid
}

func registration(t *testing.T, l *loop, name string, pid int, ports table.Ports) (*keeper, *keeper, error) {
	t.Helper()
	p, err := process.Watch(pid)
	if err != nil {
		t.Fatal(err)
	}
	k := l.newKeeper(state.Record{Instance: name, Phase: state.Running, Identity: p.Identity(), Ports: ports, Origin: originOutside, Ready: true, Stop: module.DefaultStop})
	owner, err := l.takeIn(k, p, nil, Registration{Instance: name, PID: pid, Ports: ports})
	if owner != k {
		p.Close()
	}
	return k, owner, err
}

// TestRegisterAgain: the same process under the same name is the same, under
// another name it is refused; a held name takes nobody in.
func TestRegisterAgain(t *testing.T) {
	l := loopWithStore(t)
	pid := sleeper(t)
	first, owner, err := registration(t, l, "Out", pid, table.Ports{TCP: 15001})
	if err != nil || owner != first {
		t.Fatal(owner, err)
	}
	if _, owner, err := registration(t, l, "Out", pid, table.Ports{TCP: 15002}); err != nil || owner != first {
		t.Errorf("again: %v, %v", owner, err)
	}
	if got := l.instances["Out"].child.ports.TCP; got != 15002 {
		t.Errorf("port %d", got)
	}
	p, err := process.Watch(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	again := Registration{Instance: "Out", PID: pid, Module: "another", Ports: table.Ports{TCP: 15003}}
	var refused *Error
	if _, err := l.takeIn(first, p, nil, again); !errors.As(err, &refused) || refused.Field != "module" {
		t.Errorf("under another module: %v", err)
	}
	if known := l.knownOutside(again); known.PID != 0 {
		t.Errorf("under another module: it is known as %v", known)
	}
	if got := l.instances["Out"].child.ports.TCP; got != 15002 {
		t.Errorf("under another module: port %d", got)
	}
	if _, _, err := registration(t, l, "Other", pid, table.Ports{}); err == nil {
		t.Error("one process has two names")
	}
	l.get("Held").held = true
	if _, _, err := registration(t, l, "Held", sleeper(t), table.Ports{}); err == nil {
		t.Error("a held name took somebody in")
	}
}

// TestOutsideStaysOutside: the next agent watches it as this one did, and does
// not take its session for a tree of ours.
func TestOutsideStaysOutside(t *testing.T) {
	c := exec.Command("sh", "-c", "sleep 61 >/dev/null & echo $!; exec sleep 60")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var neighbour int
	if _, err := fmt.Fscan(out, &neighbour); err != nil {
		t.Fatal(err)
	}
	w, err := process.Watch(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	r := state.Record{Instance: "Out", Phase: state.Running, Identity: w.Identity(), Origin: originOutside, Ready: true}
	w.Close()
	p, err := open(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.KillTree(); err != nil {
		t.Error(err)
	}
	_ = c.Wait() // killed
	if _, err := p.Empty(t.Context()); err != nil {
		t.Error(err)
	}
	p.Close()
	n, err := process.Watch(neighbour)
	if err != nil {
		t.Fatalf("its neighbour in the session was ended: %v", err)
	}
	if err := n.KillTree(); err != nil { // by its pidfd, so it is the one
		t.Error(err)
	}
	n.Close()

	r.Identity.PID, r.Identity.StartTime = os.Getpid(), 1
	if p, err := open(r); !errors.Is(err, process.ErrGone) {
		p.Close()
		t.Error("another process of that pid was taken for it")
	}
}

// TestRoster: whoever remembers an owner is told when instances get processes and
// lose them, and when a registration is only repeated is not.
func TestRoster(t *testing.T) {
	l := loopWithStore(t)
	pid := sleeper(t)
	last := l.Roster()
	step := func(what string, changes bool) {
		t.Helper()
		now := l.Roster()
		if changed := now != last; changed != changes {
			t.Errorf("%s: the roster has changed is %v", what, changed)
		}
		last = now
	}
	for _, first := range []bool{true, false} {
		if _, _, err := registration(t, l, "Out", pid, table.Ports{}); err != nil {
			t.Fatal(err)
		}
		step("registered", first)
	}
	again := Registration{Instance: "Out", PID: pid, StatusText: "fine"}
	if p := l.knownOutside(again); p.PID != pid || p.StatusText != "fine" {
		t.Errorf("again: %+v", p)
	}
	again.Ports.TCP = 15001
	if p := l.knownOutside(again); p.PID != 0 {
		t.Errorf("with another port: %+v", p)
	}
	c := l.instances["Out"].child
	if err := c.process.KillTree(); err != nil {
		t.Fatal(err)
	}
	<-c.ended
	again.Ports.TCP = 0
	if p := l.knownOutside(again); p.PID != 0 {
		t.Errorf("when it is dead: %+v", p)
	}
	step("dead, and the loop has not heard of it", false)
	l.onLeaderGone(c, process.Exit{}, nil)
	l.onEnded(c, process.Exit{})
	step("ended", true)
	l.onStarted(withChild(l.get("In"), process.Starting).child, c.process, l.started)
	step("started", true)
}

// An outside process that was withdrawn is offered again when it registers by itself,
// unless the machine is drained.
func TestOutsideComesBack(t *testing.T) {
	for _, drained := range []bool{false, true} {
		l := loopWithStore(t)
		if _, _, err := registration(t, l, "Out", sleeper(t), table.Ports{TCP: 15001}); err != nil {
			t.Fatal(err)
		}
		i := l.instances["Out"]
		l.withdraw(i, "nobody reaches it")
		i.child.drained = drained
		l.hear(i, "up again")
		if back := i.child.state == process.Ready; back == drained {
			t.Errorf("drained %v: it is %v", drained, i.child.state)
		}
	}
}
