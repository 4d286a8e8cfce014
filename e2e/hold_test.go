//go:build linux

package e2e

import (
	"testing"
	"time"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// What an operator stops stays stopped on that machine, also by the next agent,
// until it is started again; another machine may serve the need.
func TestHold(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(2, "hello")...)
	o := s.observe(manager)
	first := s.agent("first", lab.AgentFiles{LANManager: manager.Address})
	s.served(o, 2)
	before := s.singles()

	for instance := range before {
		_, err := first.Client.Processes.StopProcess(s.ctx, &pb.StopProcessRequest{Instance: instance})
		s.must(err)
	}
	s.served(o, 0)
	s.until(func() string { return missing(0, len(s.running(first))) })
	s.decided(first, "hello-0", pb.Decision_DECISION_HELD)
	s.must(first.Leave())
	first = s.again("first")
	for instance := range before {
		s.decided(first, instance, pb.Decision_DECISION_HELD)
		if p := s.process(first, instance); !p.GetHeld() || p.GetPid() != 0 {
			t.Errorf("after the restart: %v", p)
		}
	}
	if left := s.lab.Children(); len(left) != 0 {
		t.Errorf("there are processes: %v", left)
	}

	_, err := first.Client.Processes.StartProcess(s.ctx, &pb.StartProcessRequest{Instance: "hello-1"})
	s.must(err)
	s.served(o, 1)
	own := s.child("hello-1")
	second := s.agent("second", lab.AgentFiles{LANManager: manager.Address})
	s.served(o, 2)
	s.decided(first, "hello-0", pb.Decision_DECISION_SERVED_ELSEWHERE)
	s.decided(second, "hello-0", pb.Decision_DECISION_SERVED_HERE)

	// A lifted hold takes nothing away from the other, and lasts.
	seen := len(o.Changes())
	_, err = first.Client.Processes.StartProcess(s.ctx, &pb.StartProcessRequest{Instance: "hello-0"})
	s.must(err)
	s.must(first.Leave())
	first = s.again("first")
	s.settled(first, 1)
	if d := s.decided(first, "hello-0", pb.Decision_DECISION_SERVED_ELSEWHERE); d.GetServedAt() != "127.0.0.1" {
		t.Errorf("served at %q", d.GetServedAt())
	}
	if more := o.Changes()[seen:]; len(more) != 0 {
		t.Errorf("the table changed: %v", more)
	}
	s.must(second.Shutdown(s.ctx))
	s.must(o.Await(s.ctx, "the need is the first agent's again", func(m *table.Mirror) bool { return m.Len() == 2 && len(o.ChangesLocked()) > seen }))
	if s.child("hello-1") != own {
		t.Error("the other instance was restarted")
	}
	s.decided(first, "hello-0", pb.Decision_DECISION_SERVED_HERE)
}

// A process that an operator has stopped, and that takes its time to end, is
// not offered again by an agent that finds it alive, but stopped by that one.
func TestHoldOfALivingProcess(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "stubborn")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"stubborn": s.stubborn(5 * time.Second)}})
	s.served(o, 1)
	before := s.process(a, "stubborn-0").GetPid()
	_, err := a.Client.Processes.StopProcess(s.ctx, &pb.StopProcessRequest{Instance: "stubborn-0"})
	s.must(err)
	s.must(a.Leave())
	seen := len(o.Changes())
	a = s.again("machine")
	if p := s.process(a, "stubborn-0"); p.GetPid() != before || p.GetState() != pb.ProcessState_PROCESS_STATE_STOPPING {
		t.Errorf("the next agent has %v, want process %d, which is being stopped", p, before)
	}
	s.until(func() string { return missing(0, len(s.lab.Children())) })
	s.decided(a, "stubborn-0", pb.Decision_DECISION_HELD)
	if _, ups := changes(o, seen, "stubborn-0"); len(ups) != 0 {
		t.Errorf("it was served again: %v", ups)
	}
}
