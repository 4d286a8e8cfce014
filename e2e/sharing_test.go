//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// Two agents that may run five processes each share ten needs, five and five,
// and what one of them loses goes back to it, since the other is full.
func TestTwoAgentsShare(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(10, "hello")...)
	o := s.observe(manager)
	files := lab.AgentFiles{LANManager: manager.Address, Config: map[string]any{"maxprocesses": 5}}
	agents := []*lab.Agent{s.agent("left", files), s.agent("right", files)}
	s.served(o, 10)
	before := s.singles()
	s.fiveEach(agents)

	victim := slices.Sorted(maps.Keys(s.running(agents[0])))[0]
	seen := len(o.Changes())
	before[victim].Kill()
	s.must(o.AwaitAgain(s.ctx, seen, victim))
	s.fiveEach(agents)
	after := s.singles()
	if after[victim] == before[victim] {
		t.Errorf("%s is still process %d", victim, after[victim].PID)
	}
	s.started(before, after[victim])
	delete(before, victim)
	delete(after, victim)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the death of %s was not its own matter (-before +after):\n%s", victim, diff)
	}
}

// fiveEach makes sure that two agents serve ten needs, and each five.
func (s *stage) fiveEach(agents []*lab.Agent) {
	s.t.Helper()
	for _, a := range agents {
		s.settled(a, 5)
	}
	children, at := s.singles(), map[string]string{}
	if len(children) != 10 {
		s.t.Errorf("%d instances have processes, want 10: %v", len(children), children)
	}
	for _, a := range agents {
		mine := s.running(a)
		if len(mine) != 5 {
			s.t.Errorf("%s runs %d, want 5", a.Name, len(mine))
		}
		for name, p := range mine {
			if other, twice := at[name]; twice {
				s.t.Errorf("%s runs at %s and at %s", name, other, a.Name)
			}
			at[name] = a.Name
			if int(p.GetPid()) != children[name].PID {
				s.t.Errorf("%s is process %d at %s, the system has %v", name, p.GetPid(), a.Name, children[name])
			}
			if p.GetPlace() != pb.ProcessPlace_PROCESS_PLACE_SERVED {
				s.t.Errorf("%s is %v at %s", name, p.GetPlace(), a.Name)
			}
		}
	}
}

// Two agents at two addresses of this machine, under a LAN manager that wipes
// by address, serve all needs, and what happens to one of them is not the
// other's matter.
func TestTwoAddressesUnderTheOriginal(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	port, err := s.lab.Ports(1)
	s.must(err)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	var wanted []record
	for _, n := range needs(10, "hello") {
		wanted = append(wanted, record{"instancename": n.InstanceName, "modulename": n.ModuleName})
	}
	manager := startOriginal(t, address, wanted)
	var agents []*lab.Agent
	for _, ip := range []string{"127.0.0.1", "127.0.0.2"} {
		agents = append(agents, s.agent("at-"+ip, lab.AgentFiles{LANManager: address, Config: map[string]any{"address": ip, "maxprocesses": 5}}))
	}
	var began int // in the history
	manager.await(s, "ten services, five at each address", func(at map[string]string, history []shift) bool {
		began = len(history)
		return len(at) == 10
	})
	s.fiveEach(agents)
	children := s.singles()

	// A new session of an agent wipes its services, and only those; they come
	// back with the processes that there are.
	for _, begin := range []func(){
		func() { manager.cut("127.0.0.1") },
		func() {
			s.must(agents[0].Leave())
			agents[0] = s.again(agents[0].Name)
		},
	} {
		begin()
		manager.await(s, "the services of 127.0.0.1 are back", func(at map[string]string, history []shift) bool {
			return len(at) == 10 && len(history) >= began+10
		})
		s.fiveEach(agents)
		if diff := cmp.Diff(children, s.singles()); diff != "" {
			t.Errorf("a session more, and other processes (-before +after):\n%s", diff)
		}
		mine := s.running(agents[0])
		for _, h := range manager.since(began) {
			if mine[h.instance] == nil || h.address != "127.0.0.1" {
				t.Errorf("%+v, which is not a matter of 127.0.0.1", h)
			}
		}
		if began += 10; len(manager.since(began)) > 0 {
			t.Errorf("more than five services that went and came: then %v", manager.since(began))
		}
	}

	victim := slices.Sorted(maps.Keys(s.running(agents[1])))[0]
	children[victim].Kill()
	manager.await(s, "the need of the killed child is served again", func(at map[string]string, history []shift) bool {
		return at[victim] != "" && len(history) > began
	})
	s.fiveEach(agents)
	want := []shift{{victim, "127.0.0.2", false}, {victim, "127.0.0.2", true}}
	if got := manager.since(began); !slices.Equal(got, want) {
		t.Errorf("after the kill: %+v, want %+v", got, want)
	}
	s.started(children, s.child(victim))

	for _, a := range agents {
		s.must(a.Shutdown(s.ctx))
	}
	manager.await(s, "no services", func(at map[string]string, _ []shift) bool { return len(at) == 0 })
}

// An agent that waits behind another's bids may be asked to serve all of them
// at once. It still runs no more than it may, and leaves the rest to others.
func TestFullWhenAsked(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(3, "hello")...)
	o := s.observe(manager)
	port, err := s.lab.Ports(1)
	s.must(err)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	link := startProxy(t, address, manager.Address)
	slow := s.hello()
	slow["command"], slow["ready"] = []string{"sleep", "600"}, map[string]string{"kind": "register"}
	s.agent("slow", lab.AgentFiles{LANManager: address, Modules: map[string]lab.Module{"hello": slow}})
	s.until(func() string { return missing(3, len(s.lab.Children())) })
	small := s.agent("small", lab.AgentFiles{LANManager: manager.Address, Config: map[string]any{"maxprocesses": 1}})
	for _, n := range needs(3, "hello") {
		s.decided(small, n.InstanceName, pb.Decision_DECISION_BID_PENDING)
	}

	link.cut()
	s.served(o, 1)
	s.until(func() string {
		full := 0
		for _, n := range needs(3, "hello") {
			if s.need(small, n.InstanceName).GetDecision() == pb.Decision_DECISION_CAPACITY {
				full++
			}
		}
		return missing(2, full)
	})
	if mine := s.running(small); len(mine) != 1 {
		t.Errorf("it runs %v, and may run one", mine)
	}
}

// missing says how many there are if that is not as wanted.
func missing(want, got int) string {
	if got == want {
		return ""
	}
	return fmt.Sprintf("there are %d, want %d", got, want)
}
