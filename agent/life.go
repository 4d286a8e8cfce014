package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/allexgo/machine-agent/agent/metrics"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
)

// This file is what the keepers tell the loop, in the order of a life.

func (l *loop) onStarted(c *child, p *process.Process, began time.Time) {
	i := l.instances[c.name]
	c.process, c.start = p, began
	i.shortage = pause{}
	l.Figures.Count(metrics.Spawn)
	l.reached(i, metrics.StageStart)
	l.Logger.Debug("started", "instance", c.name, "pid", c.pid())
	l.happenedTo(i, ProcessStarted, "")
	if c.state == process.Stopping {
		l.end(i)
	}
	l.settle(i)
}

// onNotStarted is told when there never was a process.
func (l *loop) onNotStarted(c *child, err error) {
	i := l.instances[c.name]
	planned := c.planned
	if errors.Is(err, errCancelled) {
		err = errors.New(c.reason)
	}
	i.child, i.lastEnd = nil, time.Now()
	l.ports.Keep(i.name)
	if planned {
		i.lastReason = c.reason
		l.happenedTo(i, ProcessNotStarted, c.reason)
	} else {
		l.failed(i, c.module, err)
	}
	l.cancelBid(i)
	l.settle(i)
}

func (l *loop) onReady(c *child) {
	if l.move(c, process.EvReady) != nil {
		return
	}
	i := l.instances[c.name]
	c.ready = time.Now()
	l.Figures.Count(metrics.ProcessReady)
	l.reached(i, metrics.StageReady)
	i.thefts = 0
	l.awaitRecovery(i)
	l.ports.Listening(c.name)
	l.happenedTo(i, ProcessReady, "")
	l.settle(i)
}

// onNotReady is told when the start timeout is over.
func (l *loop) onNotReady(c *child, reason string) {
	if c.state == process.Starting {
		l.stop(l.instances[c.name], reason, false)
	}
}

// onHealth is told when a process is not well any more, and when it is again.
func (l *loop) onHealth(c *child, err error) {
	i := l.instances[c.name]
	switch {
	case err != nil && (c.state == process.Ready || c.drained):
		l.Logger.Warn("a process is withdrawn", "instance", c.name, "pid", c.pid(), "reason", err)
		c.unwell = true
		reason := fmt.Sprintf("not well: %v", err)
		l.withdraw(i, reason)
		l.withdrawn(c, reason)
	case err == nil && i.unwell():
		l.Logger.Info("a process is well again", "instance", c.name, "pid", c.pid())
		c.unwell, c.reason = false, ""
		l.withdrawn(c, "")
		if l.move(c, process.EvReady) == nil {
			l.happenedTo(i, ProcessReady, "it is well again")
			l.settle(i)
		}
	}
}

// byItself is why a process ended that nobody made end.
const byItself = "it ended by itself"

// onLeaderGone is told while the leader is still a zombie. The LAN hears of it
// now; the ports stay leased until the tree is gone. stolen tells why it could not
// become ready, if that was it.
func (l *loop) onLeaderGone(c *child, seen process.Exit, stolen *theft) {
	i := l.instances[c.name]
	end, starting := endOf(c, seen), c.state == process.Starting
	if l.move(c, process.EvLeaderGone) != nil {
		return
	}
	l.Figures.Count(end)
	if starting && stolen != nil {
		l.robbed(i, stolen)
		c.reason, c.planned = stolen.Error(), i.thefts <= mostThefts
	}
	if c.offered && !c.planned {
		i.missed = time.Now()
	}
	c.exit = &seen
	if c.reason == "" {
		c.reason = byItself
	}
	i.lastReason = c.reason
	if !c.planned {
		l.countFailure(i, c)
	}
	if i.bid != nil && i.bid.responded {
		l.cancelBid(i) // what was offered is not there any more
		i.reopens = time.Now().Add(reopenWithin)
	}
	l.settle(i)
}

func (l *loop) countFailure(i *instance, c *child) {
	var healthy time.Duration
	if !c.ready.IsZero() {
		healthy = time.Since(c.ready)
	}
	rules := module.Backoff{}
	if c.module != nil {
		rules = c.module.Backoff
	}
	l.fails(i, healthy, rules, c.exit)
}

// onEnded is told when nothing of the process is left.
func (l *loop) onEnded(c *child, exit process.Exit) {
	i := l.instances[c.name]
	if l.move(c, process.EvEmpty) != nil {
		return
	}
	l.ended(i, c.pid(), c.start, exit, c.reason)
	i.child = nil
	i.lastPorts = c.ports
	if c.offered {
		i.ghost = &c.ports
	}
	l.ports.Keep(i.name)
	l.settle(i)
}

// ended notes the end of a process: the one event of it in the journal. Without a
// start it is not known how long it ran.
func (l *loop) ended(i *instance, pid int, start time.Time, exit process.Exit, reason string) {
	i.lastExit, i.lastReason, i.lastEnd = &exit, describeEnd(reason, exit), time.Now()
	about := []any{"instance", i.name, "pid", pid, "exit", exit}
	if !start.IsZero() {
		about = append(about, "ran", i.lastEnd.Sub(start).Round(time.Millisecond))
	}
	l.Logger.Info("process ended", append(about, "reason", reason, "failures", i.backoff.failures)...)
	l.happened(Event{Kind: ProcessEnded, Instance: i.name, Module: i.lastModule, PID: pid, Exit: &exit, Detail: reason})
}
