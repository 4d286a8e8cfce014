//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// ok runs agentctl, which has to succeed.
func (s *stage) ok(a *lab.Agent, args ...string) string {
	s.t.Helper()
	out, err := a.Ctl(s.ctx, args...)
	if err != nil {
		s.t.Fatalf("agentctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// at waits until n services are served, all of them at an address.
func (s *stage) at(o *lab.Observer, address string, n int) {
	s.t.Helper()
	s.must(o.Await(s.ctx, fmt.Sprintf("%d services at %s", n, address), func(m *table.Mirror) bool {
		for _, record := range m.All() {
			if table.ParseService(record).IPAddress != address {
				return false
			}
		}
		return m.Len() == n
	}))
}

func (s *stage) isDrained(a *lab.Agent, want bool) {
	s.t.Helper()
	status, err := a.Client.Agent.GetStatus(s.ctx, &pb.GetStatusRequest{})
	s.must(err)
	if status.GetDrained() != want {
		s.t.Errorf("%s is drained: %v, want %v", a.Name, status.GetDrained(), want)
	}
}

// A drained machine leaves its services to others and takes none, also after a
// restart, until it is resumed; what is held then stays held.
func TestDrain(t *testing.T) {
	t.Parallel()
	const count = 4
	s := newStage(t)
	manager := s.lan(needs(count, "hello")...)
	o := s.observe(manager)
	one := s.agent("one", lab.AgentFiles{LANManager: manager.Address})
	s.served(o, count)
	two := s.agent("two", lab.AgentFiles{LANManager: manager.Address, Config: map[string]any{"address": "127.0.0.2"}})
	s.linked(two)

	out := s.ok(one, "drain", "--wait")
	if !strings.HasPrefix(out, "drained: 4 processes are being stopped") || !strings.HasSuffix(out, "nothing is left\n") {
		t.Errorf("agentctl drain --wait said:\n%s", out)
	}
	if left := s.running(one); len(left) != 0 {
		t.Errorf("there are processes: %v", left)
	}
	s.at(o, "127.0.0.2", count)
	s.isDrained(one, true)
	s.isDrained(two, false)
	if status := s.ok(one, "status"); !strings.Contains(status, "nothing is served here until `agentctl resume`") {
		t.Errorf("agentctl status said:\n%s", status)
	}
	for _, p := range s.running(two) {
		if p.GetFailures() != 0 {
			t.Errorf("it was taken over as a failure: %v", p)
		}
	}

	s.ok(one, "stop", "hello-0")
	s.must(one.Leave())
	one = s.again("one")
	s.linked(one)
	s.isDrained(one, true)
	s.must(two.Shutdown(s.ctx))
	for n := range count {
		s.decided(one, fmt.Sprintf("hello-%d", n), pb.Decision_DECISION_DRAINED)
	}
	if left := s.lab.Children(); len(left) != 0 {
		t.Errorf("there are processes: %v", left)
	}

	s.ok(one, "resume")
	s.at(o, "127.0.0.1", count-1)
	s.decided(one, "hello-0", pb.Decision_DECISION_HELD)
	before := s.singles()
	s.must(one.Leave())
	one = s.again("one")
	s.settled(one, count-1)
	s.isDrained(one, false)
	s.decided(one, "hello-0", pb.Decision_DECISION_HELD)
	for instance, child := range s.singles() {
		if before[instance] != child {
			t.Errorf("%s was started again", instance)
		}
	}
}

// An agent that is killed in the midst of a drain, and started again, completes it.
func TestDrainIsCompletedByTheNextAgent(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(2, "hello")...)
	o := s.observe(manager)
	module := s.hello()
	module["stop"] = map[string]string{"grace": "1h"}
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"hello": module}})
	s.served(o, 2)
	s.ok(a, "drain")
	s.served(o, 0)
	if left := s.running(a); len(left) != 2 {
		t.Errorf("in their grace there are %v", left)
	}
	s.must(a.Leave())
	module["stop"] = map[string]string{"grace": "0s"}
	s.must(lab.WriteJSON(filepath.Join(a.Directory, "modules", "hello.json"), module))
	a = s.again("machine")
	s.ok(a, "drain", "--wait")
	if left := s.lab.Children(); len(left) != 0 {
		t.Errorf("there are processes: %v", left)
	}
	s.ok(a, "resume")
	s.served(o, 2)
}

// An outside process is withdrawn as long as the machine is drained, also by the
// next agent, and lives on.
func TestDrainWithdrawsOutsideProcesses(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(lab.Need{InstanceName: "Legacy", ModuleName: "allex_legacy"})
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address})
	port, err := s.lab.Ports(1)
	s.must(err)
	legacy := s.outsider(port, filepath.Join(s.lab.Bin, "hello"))
	s.accepts(port)
	s.ok(a, "register", "Legacy", "--pid", strconv.Itoa(legacy.Process.Pid), "--http", strconv.Itoa(port))
	s.served(o, 1)
	if out := s.ok(a, "drain", "--wait"); !strings.HasPrefix(out, "drained: 0 processes") {
		t.Errorf("agentctl drain --wait said:\n%s", out)
	}
	for range 2 {
		s.served(o, 0)
		s.decided(a, "Legacy", pb.Decision_DECISION_DRAINED)
		if p := s.process(a, "Legacy"); int(p.GetPid()) != legacy.Process.Pid || p.GetState() != pb.ProcessState_PROCESS_STATE_WITHDRAWN {
			t.Errorf("it is %v", p)
		}
		s.ok(a, "drain") // again is no other
		s.must(a.Leave())
		a = s.again("machine")
	}
	s.ok(a, "resume")
	s.served(o, 1)
	s.accepts(port)
}
