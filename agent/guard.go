package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/probe"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// This file is how a keeper asks a process that is ready time and again whether it
// still is well.

// guard has its checks ask until alive ends.
func (k *keeper) guard(alive context.Context, p *process.Process, how asked, checks *sync.WaitGroup) {
	for _, g := range []struct {
		name  string
		check *module.Check
		ill   bool
		tell  func(*loop, *child, error)
	}{
		{"live", how.health.Live, false, (*loop).onLive},
		{"ready", how.health.Ready, how.ill, (*loop).onHealth},
	} {
		if g.check != nil {
			checks.Go(func() { k.check(alive, g.check, how.check(g.name, g.check.Ready, p), g.ill, g.tell) })
		}
	}
}

// check is what r asks of a process that is ready.
func (how asked) check(name string, r module.Ready, p *process.Process) probe.Question {
	if r.Kind != module.HealthCommand {
		return how.question(r, how.owner(p))
	}
	spec := how.command.spec
	spec.Argv, spec.SHA256 = r.Argv(how.command.values), nil
	if spec.Cgroup != "" {
		spec.Cgroup = filepath.Join(spec.Cgroup, "check-"+name)
	}
	return probe.Command(spec)
}

// check asks at intervals, and tells the loop when enough answers in a row were
// no, and when as many as it takes were yes again.
func (k *keeper) check(alive context.Context, c *module.Check, q probe.Question, ill bool, tell func(*loop, *child, error)) {
	failures, successes := 0, 0
	answer := make(chan error)
	next := time.NewTimer(rand.N(c.Interval)) // so that a thousand that came up together are not asked together
	defer next.Stop()
	for {
		select {
		case <-alive.Done():
			return
		case <-next.C:
		}
		// On a goroutine of its own: the stack of this one would grow by it, and be kept
		// from one question to the next.
		go func() { answer <- k.once(alive, c, q) }()
		err := <-answer
		if alive.Err() != nil {
			return // what is dead is not ill
		}
		if err != nil {
			successes = 0
			if failures++; !ill && failures >= c.Failures {
				ill = true
				k.tell(func(l *loop, c *child) { tell(l, c, err) })
			}
		} else {
			failures = 0
			if successes++; ill && successes >= c.Successes {
				ill = false
				k.tell(func(l *loop, c *child) { tell(l, c, nil) })
			}
		}
		next.Reset(untilNext(c.Interval))
	}
}

// beat is the moments at which checks are asked: what is to be asked at about the
// same time wakes the agent once.
const beat = 250 * time.Millisecond

// untilNext is the wait until the next question, a tenth longer or shorter than the
// interval, so that checks which fell together fall apart.
func untilNext(interval time.Duration) time.Duration {
	wait := interval*9/10 + rand.N(interval/5)
	if interval < 10*beat {
		return wait
	}
	return time.Until(time.Now().Add(wait).Truncate(beat))
}

// once asks once, within the time for one answer. Of commands few run at a time on
// this machine; what waits for its turn waits in no time of its own.
func (k *keeper) once(alive context.Context, c *module.Check, q probe.Question) error {
	if c.Kind == module.HealthCommand {
		select {
		case k.agent.commands <- struct{}{}:
			defer func() { <-k.agent.commands }()
		case <-alive.Done():
			return context.Cause(alive)
		}
	}
	within, stop := context.WithTimeout(alive, c.Timeout)
	defer stop()
	return q.Once(within)
}

// commandsAtOnce is how many commands may ask at a time.
func commandsAtOnce() int { return 4 * runtime.NumCPU() }

// asksByCommand tells whether a command asks how the processes of a module are.
func asksByCommand(m *module.Module) bool {
	is := func(c *module.Check) bool { return c != nil && c.Kind == module.HealthCommand }
	return is(m.Health.Live) || is(m.Health.Ready)
}

// serving asks over gRPC, of which this package knows nothing.
func (a *Agent) serving(ctx context.Context, address, service string) error {
	if a.Children == nil {
		return errors.New("this agent does not speak gRPC")
	}
	return a.Children.Serving(ctx, address, service)
}

// onLive is told when a process is not alive any more.
func (l *loop) onLive(c *child, err error) {
	if err != nil {
		l.stop(l.instances[c.name], fmt.Sprintf("not alive: %v", err), false)
	}
}

// adoptedNeed is what is still known of the need of a process that an agent before
// this one started.
func adoptedNeed(instance, module string) *table.Need {
	return &table.Need{InstanceName: instance, ModuleName: module}
}
