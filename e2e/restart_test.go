//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// However an agent ends, the next one has the same children with the same
// ports; the LAN does not notice. What they do then is its business as before.
func TestAgentAgain(t *testing.T) {
	for _, how := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(how.String(), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			_, o, a := s.serving(3)
			children, ports := s.singles(), leases(s.running(a))

			seen := len(o.Changes())
			s.must(a.Stop(how))
			a = s.again("machine")
			s.settled(a, 3)
			if diff := cmp.Diff(children, s.singles()); diff != "" {
				t.Errorf("other processes (-before +after):\n%s", diff)
			}
			now := s.running(a)
			if diff := cmp.Diff(ports, leases(now)); diff != "" {
				t.Errorf("other ports (-before +after):\n%s", diff)
			}
			for name, p := range now {
				if p.GetOrigin() != pb.ProcessOrigin_PROCESS_ORIGIN_ADOPTED || p.GetState() != pb.ProcessState_PROCESS_STATE_READY || int(p.GetPid()) != children[name].PID {
					t.Errorf("the agent has %v of %v", p, children[name])
				}
			}
			if more := o.Changes()[seen:]; len(more) != 0 {
				t.Errorf("the LAN noticed: %v", more)
			}

			children["hello-1"].Kill()
			s.must(o.AwaitAgain(s.ctx, seen, "hello-1"))
			if diff := cmp.Diff(ports, leases(s.running(a))); diff != "" {
				t.Errorf("other ports after a death (-before +after):\n%s", diff)
			}
			s.started(children, s.child("hello-1"))
		})
	}
}

// A child that died while no agent was there ended in a way that nobody knows,
// and its need is served again.
func TestDeathWithoutAgent(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	_, o, a := s.serving(3)
	children := s.singles()

	seen := len(o.Changes())
	s.must(a.Leave())
	children["hello-1"].Kill()
	s.gone(children["hello-1"])
	a = s.again("machine")
	s.must(o.AwaitAgain(s.ctx, seen, "hello-1"))
	if p := s.process(a, "hello-1"); !p.GetLastExit().GetUnknown() || p.GetOrigin() != pb.ProcessOrigin_PROCESS_ORIGIN_STARTED {
		t.Errorf("it ended with %v and now is %v", p.GetLastExit(), p)
	}
	out, err := a.Ctl(s.ctx, "ps")
	s.must(err)
	if !strings.Contains(out, "exit status unknown") {
		t.Errorf("agentctl ps does not say that the exit status is unknown:\n%s", out)
	}
	if downs, ups := changes(o, seen, "hello-1"); len(downs) != 1 || len(ups) != 1 || len(o.Changes()) != seen+2 {
		t.Errorf("one service had to go and come: %v", o.Changes()[seen:])
	}
	s.settled(a, 3)
	s.started(children, s.child("hello-1"))
}

// settled waits until an agent knows that n of its processes are on the table.
func (s *stage) settled(a *lab.Agent, n int) {
	s.t.Helper()
	s.until(func() string {
		answer, err := a.Client.Agent.GetStatus(s.ctx, &pb.GetStatusRequest{})
		s.must(err)
		if int(answer.GetServedHere()) == n {
			return ""
		}
		return "the agent's status is " + answer.String()
	})
}

// leases are the ports of each instance, in words.
func leases(all map[string]*pb.Process) map[string]string {
	words := map[string]string{}
	for _, name := range slices.Collect(maps.Keys(all)) {
		words[name] = all[name].GetPorts().String()
	}
	return words
}

// An agent that is told to leave while it starts children leaves at once, and
// the next one has every child that was started.
func TestLeavingWhileStarting(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	const n = 16
	manager := s.lan(needs(n, "hello")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address})
	all := map[string]lab.Child{}
	for len(all) < n {
		s.until(func() string {
			now := s.singles()
			if len(now) > len(all) {
				return ""
			}
			return fmt.Sprintf("there are %d children, as before", len(now))
		})
		s.must(a.Leave())
		now := s.singles()
		for name, c := range all {
			if now[name] != c {
				t.Errorf("%s was %v and is %v", name, c, now[name])
			}
		}
		all = now
		a = s.again("machine")
	}
	s.served(o, n)
	if diff := cmp.Diff(all, s.singles()); diff != "" {
		t.Errorf("other processes (-before +after):\n%s", diff)
	}
	s.started(all)
}
