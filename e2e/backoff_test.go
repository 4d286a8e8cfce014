//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// A child that ends at once waits longer and longer for its next start, and the
// agent tells until when and why.
func TestBackoffGrows(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	starts := filepath.Join(s.lab.Dir, "starts")
	module := s.hello()
	module["modulename"] = "quitter"
	module["command"] = []string{"sh", "-c", `date +%s%N >>"$STARTS"; exit 3`}
	module["environment"] = map[string]string{"STARTS": starts}
	const initial = 100 * time.Millisecond
	module["backoff"] = map[string]string{"initial": initial.String()}
	a := s.agent("machine", lab.AgentFiles{LANManager: s.lan(needs(1, "quitter")...).Address, Modules: map[string]lab.Module{"quitter": module}})

	var at []time.Time
	s.until(func() string {
		if at = times(s, starts); len(at) >= 5 {
			return ""
		}
		return fmt.Sprintf("it was started %d times", len(at))
	})
	for k, began := range at[1:] {
		// A quarter less is the most that jitter takes off.
		if wait, least := began.Sub(at[k]), initial<<k*3/4; wait < least {
			t.Errorf("start %d came %s after the one before, want %s or more", k+2, wait, least)
		}
	}
	s.until(func() string { // the status comes a moment after the wait has begun
		d := s.need(a, "quitter-0")
		if d.GetDecision() != pb.Decision_DECISION_BACKOFF || d.GetRetryTime() == nil || !strings.Contains(d.GetDetail(), "exit code 3") {
			return "a wait with its reason: " + d.String()
		}
		return ""
	})
	p := s.process(a, "quitter-0")
	if p.GetFailures() < 5 || p.GetLastExit().GetCode() != 3 {
		t.Errorf("after five ends: %v", p)
	}
	s.until(func() string { // it may be starting just now
		if out := s.ok(a, "needs"); !strings.Contains(out, "BACKOFF") || !strings.Contains(out, "exit code 3") {
			return "the wait in agentctl needs:\n" + out
		}
		return ""
	})
}

// times reads a file with a moment in each line.
func times(s *stage, file string) []time.Time {
	s.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		return nil // not yet
	}
	var all []time.Time
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		s.must(err)
		all = append(all, time.Unix(0, ns))
	}
	return all
}

// A child that was healthy for a while is replaced at once; one that was not
// waits, until an operator says that it need not.
func TestBackoffIsForTheUnhealthy(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "hello")...)
	o := s.observe(manager)
	module := s.hello()
	const reset = time.Second
	module["backoff"] = map[string]string{"initial": "10m", "max": "10m", "reset": reset.String()}
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"hello": module}})
	s.served(o, 1)

	<-time.After(reset) // it was ready before it was served
	seen := len(o.Changes())
	s.child("hello-0").Kill()
	s.must(o.AwaitAgain(s.ctx, seen, "hello-0"))
	if p := s.process(a, "hello-0"); p.GetFailures() != 0 {
		t.Errorf("a healthy process counts as failed: %v", p)
	}

	// It may take several tries to kill one before it counts as healthy.
	for p := s.process(a, "hello-0"); p.GetFailures() == 0; {
		s.until(func() string {
			if p = s.process(a, "hello-0"); p.GetState() != pb.ProcessState_PROCESS_STATE_READY {
				return "nobody to kill: " + p.String()
			}
			return ""
		})
		victim := s.child("hello-0")
		victim.Kill()
		s.until(func() string {
			if p = s.process(a, "hello-0"); int(p.GetPid()) == victim.PID {
				return "the agent has not noticed the kill: " + p.String()
			}
			return ""
		})
	}
	d := s.decided(a, "hello-0", pb.Decision_DECISION_BACKOFF)
	if wait := time.Until(d.GetRetryTime().AsTime()); wait < 5*time.Minute {
		t.Errorf("it waits for %s, want about 10m: %v", wait, d)
	}
	_, err := a.Client.Processes.StartProcess(s.ctx, &pb.StartProcessRequest{Instance: "hello-0"})
	s.must(err)
	s.served(o, 1)
	if p := s.process(a, "hello-0"); p.GetFailures() != 0 || p.GetBackoffUntil() != nil {
		t.Errorf("after StartProcess: %v", p)
	}
}
