//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/allexgo/machine-agent/client"
	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// follower follows the processes and the events of an agent, and of those after it.
type follower struct {
	watching errgroup.Group

	mu          sync.Mutex
	processes   map[string]*pb.Process
	startedOver int            // by the watch of processes
	epoch       string         // that the watch of events has caught up with
	ends        map[int]int    // how often the end of each pid was told
	kinds       map[string]int // how often each kind of event was
}

// follow has a follower watch until the test ends.
func (s *stage) follow(a *lab.Agent) *follower {
	s.t.Helper()
	c, err := client.Dial("unix:" + a.Socket)
	s.must(err)
	ctx, stop := context.WithCancel(s.ctx)
	w := &follower{processes: map[string]*pb.Process{}, ends: map[int]int{}, kinds: map[string]int{}}
	s.t.Cleanup(func() {
		stop()
		if err := w.watching.Wait(); !errors.Is(err, context.Canceled) {
			s.t.Errorf("a watch ended with %v", err)
		}
		c.Close()
	})
	w.watching.Go(func() error {
		for u, err := range c.WatchProcesses(ctx, client.From{}) {
			if err != nil {
				return err
			}
			w.process(u)
		}
		return nil
	})
	w.watching.Go(func() error {
		for u, err := range c.WatchEvents(ctx, client.From{}) {
			if err != nil {
				return err
			}
			w.event(u)
		}
		return nil
	})
	return w
}

func (w *follower) process(u client.Update[*pb.Process]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch u.Kind {
	case client.Changed:
		w.processes[u.Instance] = u.Value
	case client.Gone:
		delete(w.processes, u.Instance)
	case client.StartedOver:
		w.startedOver++
		clear(w.processes)
	}
}

func (w *follower) event(u client.Update[*pb.Event]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if u.Kind == client.CaughtUp {
		w.epoch = u.Epoch
	}
	if u.Kind != client.Changed {
		return
	}
	w.kinds[strings.TrimPrefix(u.Value.Kind.String(), "EVENT_KIND_")]++
	if u.Value.Kind == pb.EventKind_EVENT_KIND_PROCESS_ENDED {
		w.ends[int(u.Value.Pid)]++
	}
}

// sees waits until the follower sees what the agent lists, and hears its events.
func (s *stage) sees(w *follower, a *lab.Agent) {
	s.t.Helper()
	picture := func(all []*pb.Process) string {
		lines := make([]string, len(all))
		for i, p := range all {
			lines[i] = fmt.Sprint(p.Instance, " ", p.Pid, " ", p.State, " ", p.Place, " ", p.Origin)
		}
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	s.until(func() string {
		list, err := a.Client.Processes.ListProcesses(s.ctx, &pb.ListProcessesRequest{})
		s.must(err)
		w.mu.Lock()
		defer w.mu.Unlock()
		listed, seen := picture(list.Processes), picture(slices.Collect(maps.Values(w.processes)))
		if listed == seen && w.epoch == list.Epoch {
			return ""
		}
		return fmt.Sprintf("the follower sees\n%s\nof epoch %s instead of\n%s\nof epoch %s", seen, w.epoch, listed, list.Epoch)
	})
}

// A watch over ten restarts of the agent misses nothing, says each time that it
// had to start over, and tells every end of a process once, be it that it came
// while the agent left.
func TestWatchOverRestarts(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	_, o, a := s.serving(3)
	w := s.follow(a)
	s.sees(w, a)

	const restarts = 10
	killed := map[int]int{}
	kill := func() {
		c := s.child("hello-1")
		c.Kill()
		killed[c.PID] = 1
	}
	for n := range restarts {
		seen := len(o.Changes())
		if n%2 == 0 {
			kill()
			s.must(a.Leave()) // while the process ends
		} else {
			s.must(a.Stop(syscall.SIGKILL))
			kill()
		}
		a = s.again("machine")
		s.must(o.AwaitAgain(s.ctx, seen, "hello-1"))
		s.settled(a, 3)
		s.sees(w, a)
	}
	s.until(func() string {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !maps.Equal(killed, w.ends) {
			return fmt.Sprintf("these were killed: %v; these ends were told: %v", killed, w.ends)
		}
		return ""
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.startedOver != restarts {
		t.Errorf("the watch started over %d times in %d restarts", w.startedOver, restarts)
	}
	if w.kinds["PROCESS_STARTED"] < restarts || w.kinds["LINK_UP"] < restarts || w.kinds["PROCESS_ADOPTED"] < 2*restarts {
		t.Errorf("the events: %v", w.kinds)
	}
}

// Watches do not keep the agent from leaving.
func TestAgentLeavesItsFollowers(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	a := s.agent("machine", lab.AgentFiles{LANManager: s.lan().Address})
	s.linked(a)
	w := s.follow(a)
	s.sees(w, a)
	s.must(a.Leave())
	if code := a.ExitCode(); code != 0 {
		t.Errorf("the agent left with exit code %d", code)
	}
	if out := a.Output(); strings.Contains(out, "did not finish in time") {
		t.Errorf("it had to cut its followers off:\n%s", out)
	}
	s.again("machine")
}
