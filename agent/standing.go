package agent

import (
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
)

// This file takes processes off the LAN's table, to end or for a while, and has the
// next agent know of it.

// mostReason bounds, in bytes, a reason in a record, which is to stay small (ADR 1).
const mostReason = 512

// stop makes the process of an instance end. The record leaves the LAN's
// table first: a planned end, which is nobody's failure, waits for that.
func (l *loop) stop(i *instance, reason string, planned bool) {
	c := i.child
	if c == nil || l.move(c, process.EvStop) != nil {
		return
	}
	c.reason, c.planned = reason, planned
	l.Logger.Info("stopping a process", "instance", i.name, "pid", c.pid(), "reason", reason)
	l.happenedTo(i, ProcessStopping, reason)
	l.cancelBid(i)
	l.settle(i)
	if c.process == nil {
		c.keeper.cancel() // or onStarted sees that it is not wanted any more
		return
	}
	l.end(i)
}

// end has the started process of an instance end that is to stop.
func (l *loop) end(i *instance) {
	c := i.child
	l.note(c, func(r *state.Record) { r.Stopping = clipped(c.reason, mostReason) })
	c.keeper.stop(l.farewell(i))
}

// withdraw takes the process of an instance off the LAN's table and lets it run
// on.
func (l *loop) withdraw(i *instance, reason string) {
	if l.move(i.child, process.EvWithdraw) == nil {
		i.child.reason = reason
		l.happenedTo(i, ProcessWithdrawn, reason)
		l.settle(i)
	}
}

// withdrawn has the next agent know that a process is not to be offered; empty: that it
// may be.
func (l *loop) withdrawn(c *child, why string) {
	l.note(c, func(r *state.Record) { r.Withdrawn = clipped(why, mostReason) })
}

// note has written what the next agent must know of a running process. The loop does
// not wait for the disk.
func (l *loop) note(c *child, change func(*state.Record)) {
	if c.process == nil {
		return
	}
	c.change(change)
	l.tasks.Go(func() {
		if err := c.write(); err != nil {
			l.Logger.Warn("how a process stands could not be recorded; it is tried again", "instance", c.name, "error", err)
		}
	})
}

// stayWithdrawn has an adopted process be withdrawn as the agent before left it, if
// there still is what ends that.
func (c *child) stayWithdrawn(why string, how *asked) {
	switch {
	case why == "":
		return
	case why == saidStopping:
		c.stopping, c.planned = true, true
	case how.health.Ready != nil:
		c.unwell, how.ill = true, true
	default: // it is not asked any more how it is
		return
	}
	c.state, c.reason = process.Withdrawn, why
}
