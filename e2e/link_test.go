//go:build linux

package e2e

import (
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// The death of the LAN manager is none of the children's business, and its
// successor has all services back soon, without the longest waits between two tries.
func TestLANManagerKilled(t *testing.T) {
	s := newStage(t)
	manager, o, a := s.serving(5)
	services, children := o.Services(), s.singles()

	s.must(manager.Stop(syscall.SIGKILL))
	s.until(func() string {
		answer, err := a.Client.Agent.GetStatus(s.ctx, &pb.GetStatusRequest{})
		s.must(err)
		if link := answer.GetLink(); link.GetConnected() || link.GetProblem() == "" {
			return "the agent has not noticed: " + link.String()
		}
		return ""
	})
	manager = s.lan()
	listening := time.Now()
	o = s.observe(manager)
	s.served(o, 5)
	if took := time.Since(listening); took > 5*time.Second {
		t.Errorf("the services were back after %s, want at most 5s", took)
	}
	if diff := cmp.Diff(services, o.Services()); diff != "" {
		t.Errorf("other services (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(children, s.singles()); diff != "" {
		t.Errorf("other processes (-before +after):\n%s", diff)
	}
	s.started(children)
}

// A need that was taken over while the link was cut ends in one process: that
// of the other agent.
func TestTakenOverDuringACut(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "hello")...)
	o := s.observe(manager)
	port, err := s.lab.Ports(1)
	s.must(err)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	link := startProxy(t, address, manager.Address)
	config := map[string]any{"orphangrace": "300ms"}
	first := s.agent("first", lab.AgentFiles{LANManager: address, Config: config})
	s.served(o, 1)
	old := s.child("hello-0")
	second := s.agent("second", lab.AgentFiles{LANManager: manager.Address, Config: config})
	s.decided(second, "hello-0", pb.Decision_DECISION_SERVED_ELSEWHERE)

	seen := len(o.Changes())
	link.cut()
	s.must(o.AwaitAgain(s.ctx, seen, "hello-0"))
	if s.running(second)["hello-0"] == nil || s.running(first)["hello-0"] == nil {
		t.Error("the need was not taken over, or the process behind the cut did not run on")
	}
	if !old.Alive() {
		t.Error("the process behind the cut has ended, with nobody to ask for that")
	}

	seen = len(o.Changes())
	link.restore()
	s.until(func() string {
		if old.Alive() {
			return "the process that nobody needs still runs"
		}
		return ""
	})
	s.decided(first, "hello-0", pb.Decision_DECISION_SERVED_ELSEWHERE)
	s.until(func() string { // it is told after the end
		if p := s.process(first, "hello-0"); !strings.Contains(p.GetLastReason(), "SERVED_ELSEWHERE") {
			return "the reason, which is: " + p.GetLastReason()
		}
		return ""
	})
	if got, want := s.child("hello-0").PID, int(s.running(second)["hello-0"].GetPid()); got != want {
		t.Errorf("process %d is left, want %d, the second agent's", got, want)
	}
	if more := o.Changes()[seen:]; len(more) != 0 {
		t.Errorf("the table changed: %v", more)
	}
	s.started(s.singles(), old)
}

// The agent waits for a LAN manager that is not there yet, for as long as it
// takes, and tells about it.
func TestAgentBeforeLANManager(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(2, "hello")...)
	s.must(manager.Stop(syscall.SIGTERM))
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address})
	s.until(func() string {
		out, err := a.Ctl(s.ctx, "status")
		s.must(err)
		if !strings.Contains(out, "no LAN manager at "+manager.Address) {
			return "the problem in:\n" + out
		}
		return ""
	})
	o := s.observe(s.lan())
	s.must(o.Await(s.ctx, "two services", func(m *table.Mirror) bool { return m.Len() == 2 }))
	s.started(s.singles())
}
