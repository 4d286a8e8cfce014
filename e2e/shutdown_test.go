//go:build linux

package e2e

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// stubborn is a module that does not listen to SIGTERM, and is killed after a
// while.
func (s *stage) stubborn(patience time.Duration) lab.Module {
	module := s.hello()
	module["modulename"] = "stubborn"
	module["command"] = []string{"sh", "-c", `trap "" TERM; "$HELLO" & wait; wait`}
	module["environment"] = map[string]string{"HELLO": filepath.Join(s.lab.Bin, "hello")}
	module["stop"] = map[string]string{"signal": "SIGTERM", "timeout": patience.String()}
	return module
}

// A shutdown stops everything, takes it off the LAN's table and ends the agent
// well. What does not listen to its stop signal is killed when its time is over.
func TestShutdown(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(append(needs(2, "hello"), needs(1, "stubborn")...)...)
	o := s.observe(manager)
	const patience = 300 * time.Millisecond
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"hello": s.hello(), "stubborn": s.stubborn(patience)}})
	s.served(o, 3)

	began := time.Now()
	out, err := a.Ctl(s.ctx, "shutdown")
	if err != nil {
		t.Fatal(out)
	}
	s.served(o, 0)
	if code := a.ExitCode(); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
	if took := time.Since(began); took < patience {
		t.Errorf("it took %s, less than what the stubborn child has to end", took)
	}
	if left := s.lab.Children(); len(left) != 0 {
		t.Errorf("there are processes: %v", left)
	}
	if log := a.Output(); !strings.Contains(log, "killed with its tree: instance=stubborn-0") {
		t.Errorf("nothing of the stubborn child in:\n%s", log)
	}
	if log := a.Output(); strings.Contains(log, "killed with its tree: instance=hello") {
		t.Errorf("a child that listens was killed:\n%s", log)
	}
	for _, c := range o.Changes() {
		if downs, ups := changes(o, 0, c.Instance); len(downs) != 1 || len(ups) != 1 {
			t.Errorf("%s went %d times and came %d times", c.Instance, len(downs), len(ups))
		}
	}
}

// An outside process outlives a shutdown, but nobody watches it any more, so it
// is off the table; the next agent has it again.
func TestShutdownLeavesOutsideProcesses(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(lab.Need{InstanceName: "Legacy", ModuleName: "allex_legacy"})
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address})
	port, err := s.lab.Ports(1)
	s.must(err)
	legacy := s.outsider(port, filepath.Join(s.lab.Bin, "hello"))
	s.accepts(port)
	out, err := a.Ctl(s.ctx, "register", "Legacy", "--pid", strconv.Itoa(legacy.Process.Pid), "--http", strconv.Itoa(port))
	if err != nil {
		t.Fatal(out)
	}
	s.served(o, 1)
	s.settled(a, 1)
	s.must(a.Shutdown(s.ctx))
	left := time.Now()
	s.served(o, 0)
	if downs, _ := changes(o, 0, "Legacy"); downs[0].At.Sub(left) > 4*time.Second {
		t.Errorf("its service was on the table for %s more, until the LAN manager gave up the agent", downs[0].At.Sub(left))
	}
	s.accepts(port)
	a = s.again("machine")
	s.served(o, 1)
	if p := s.process(a, "Legacy"); int(p.GetPid()) != legacy.Process.Pid || p.GetOrigin() != pb.ProcessOrigin_PROCESS_ORIGIN_OUTSIDE {
		t.Errorf("the next agent has %v", p)
	}
}
