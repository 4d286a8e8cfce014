package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
)

// This file is what operators want of the machine as a whole, and how what they
// want is kept.

// keeping orders the writes of kept.json: an older set never replaces a newer.
type keeping struct {
	sync.Mutex
	written int
}

// changeKept makes a change of holds or of the drain, and has it on disk before
// it returns.
func changeKept[T any](ctx context.Context, a *Agent, change func(*loop) (T, error)) (T, error) {
	type changed struct {
		answer  T
		kept    state.Kept
		version int
	}
	var none T
	// What was changed has to be written, whether the caller waits or not.
	c, err := ask(context.WithoutCancel(ctx), a, func(l *loop) (changed, error) {
		answer, err := change(l)
		if err != nil {
			return changed{}, err
		}
		l.changes++
		return changed{answer, l.keep(), l.changes}, nil
	})
	if err != nil {
		return none, err
	}
	a.keeping.Lock()
	defer a.keeping.Unlock()
	if c.version <= a.keeping.written {
		return c.answer, nil
	}
	if err := a.Store.Keep(c.kept); err != nil {
		return none, &Error{Kind: Exhausted, Message: fmt.Sprintf("the change is in force but could not be written, and will not survive the agent: %v", err)}
	}
	a.keeping.written = c.version
	return c.answer, nil
}

// keep is what is to be kept as of now.
func (l *loop) keep() state.Kept {
	k := state.Kept{Drained: l.isDrained}
	for _, i := range l.instances {
		if i.held {
			k.Holds = append(k.Holds, i.name)
		}
	}
	slices.Sort(k.Holds)
	return k
}

// The reasons of ends that nobody is to blame for.
const (
	shutsDown   = "the agent shuts down"
	drainedAway = "the machine is drained"
)

// Drain leaves all needs to other machines, and begins to stop every child. It
// tells how many there are. Outside processes go on, but are not offered any
// more. The drain is on disk when it returns, and lasts until Resume.
func (a *Agent) Drain(ctx context.Context) (int, error) {
	return changeKept(ctx, a, func(l *loop) (int, error) {
		l.isDrained = true
		l.Logger.Info("this machine is drained")
		return l.evictAll(drainedAway), nil
	})
}

// Resume lets a drained machine serve again. The drain is off the disk when it
// returns.
func (a *Agent) Resume(ctx context.Context) error {
	_, err := changeKept(ctx, a, func(l *loop) (struct{}, error) {
		if l.isDrained {
			l.Logger.Info("this machine serves again")
		}
		l.isDrained = false
		for _, i := range l.instances {
			l.readmit(i)
		}
		return struct{}{}, nil
	})
	return err
}

// Shutdown begins to stop every child, and has Run return when they are gone.
// It tells how many there are. Outside processes go on, but are not offered any
// more: nobody would tell the LAN of their end.
func (a *Agent) Shutdown(ctx context.Context) (int, error) {
	return ask(ctx, a, func(l *loop) (int, error) {
		l.shutdown = true
		return l.evictAll(shutsDown), nil
	})
}

// evictAll evicts every instance, and tells how many processes are being stopped.
func (l *loop) evictAll(reason string) (stopping int) {
	for _, i := range l.instances {
		if l.evict(i, reason) {
			stopping++
		}
	}
	return stopping
}

// evict has an instance served here no longer. It tells whether a process is being
// stopped for that: an outside process goes on.
func (l *loop) evict(i *instance, reason string) bool {
	defer l.settle(i)
	l.cancelBid(i)
	switch {
	case i.child == nil:
		return false
	case i.child.origin == Outside:
		if i.child.state == process.Ready {
			i.child.drained = l.isDrained
		}
		l.withdraw(i, reason)
		return false
	}
	l.stop(i, reason, true)
	return true
}

// readmit lets an instance be served here again, by the outside process that was
// withdrawn for the drain if it still lives.
func (l *loop) readmit(i *instance) {
	if c := i.child; c != nil && c.drained {
		c.drained = false
		if !c.unwell && l.move(c, process.EvReady) == nil {
			c.reason = ""
		}
	}
	l.settle(i)
}
