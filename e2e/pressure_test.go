//go:build linux

package e2e

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// An agent that gets no descriptor any more keeps what it has, answers who is
// connected, and says what it lacks; with descriptors it goes on by itself.
func TestOutOfDescriptors(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(2, "hello")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address})
	s.served(o, 2)
	s.linked(a) // and our connection to it is open
	before := s.singles()

	var usual unix.Rlimit
	s.must(unix.Prlimit(a.PID(), unix.RLIMIT_NOFILE, nil, &usual))
	// With none at all not even poll(2) would look at one.
	s.must(unix.Prlimit(a.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: usual.Max}, nil))
	_, err := a.Client.Needs.AddNeed(s.ctx, &pb.AddNeedRequest{Need: &pb.Need{Instance: "more", Module: "hello"}})
	s.must(err)
	s.until(func() string {
		d := s.need(a, "more")
		if d.GetDecision() != pb.Decision_DECISION_BACKOFF || !strings.Contains(d.GetDetail(), "too many open files") {
			return d.String()
		}
		return ""
	})
	for instance, c := range s.singles() {
		if before[instance] != c {
			t.Errorf("%s was %v and is %v", instance, before[instance], c)
		}
	}

	s.must(unix.Prlimit(a.PID(), unix.RLIMIT_NOFILE, &usual, nil))
	s.served(o, 3)
	for instance, c := range s.singles() {
		if was, ok := before[instance]; ok && was != c {
			t.Errorf("%s was %v and is %v", instance, was, c)
		}
	}
}
