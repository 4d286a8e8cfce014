package agent

import (
	"context"

	"github.com/allexgo/machine-agent/agent/process"
)

// This file is what operators want of the machine as a whole.

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
		if !l.isDrained {
			l.happened(Event{Kind: Drained})
		}
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
			l.happened(Event{Kind: Resumed})
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
			l.happenedTo(i, ProcessReady, "the machine serves again")
		}
	}
	l.settle(i)
}
