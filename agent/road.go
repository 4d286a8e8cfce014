package agent

import (
	"time"

	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/metrics"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// This file is what is counted and measured of the road from a need to a service
// and back. Nothing is decided by it.

// road is how far the need of an instance has come.
type road struct {
	need *table.Need // nil: there is none, or it has arrived
	seen time.Time
	last time.Time // when the stage before ended
	journey
}

// seen begins the road of a need. An offer that was ahead of it has cost it no
// time.
func (l *loop) seen(i *instance) {
	now := time.Now()
	i.road.end(now, "it was told again")
	i.road = road{need: i.need, seen: now, last: now}
	l.Figures.Count(metrics.NeedSeen)
	if i.bid != nil {
		l.reached(i, metrics.StageBid)
	}
}

// reached ends a stage.
func (l *loop) reached(i *instance, s metrics.Stage) {
	if i.road.need == nil {
		return
	}
	now := time.Now()
	l.Figures.Took(s, now.Sub(i.road.last))
	l.journeyOf(i)
	i.road.stage(s, i.road.last, now, "")
	i.road.last = now
}

// strayed begins the stages anew after a failure.
func (l *loop) strayed(i *instance) {
	now := time.Now()
	i.road.stage(i.road.under, i.road.last, now, i.lastReason)
	i.road.last = now
	if i.road.last.Before(i.backoff.until) {
		l.Figures.Count(metrics.Backoff)
	}
}

// gone ends the road of a need that is not served here.
func (l *loop) gone(i *instance) {
	i.road.end(time.Now(), "it is not served here")
	i.road, i.missed = road{}, time.Time{}
}

// arrived ends the road of the need that was answered for.
func (l *loop) arrived(i *instance, answered *table.Need) {
	if !i.missed.IsZero() {
		l.Figures.Replaced(time.Since(i.missed))
		i.missed = time.Time{}
	}
	if i.road.need != answered { // it has opened again already
		return
	}
	l.reached(i, metrics.StageServe)
	l.Figures.Served(time.Since(i.road.seen))
	i.road.end(i.road.last, "")
	i.road = road{}
}

// outcomes are how bids end.
var outcomes = map[link.Outcome]metrics.Count{
	link.Accepted:    metrics.BidAccepted,
	link.Rejected:    metrics.BidRejected,
	link.Unreachable: metrics.BidUnreachable,
	link.Destroyed:   metrics.BidDestroyed,
	link.TimedOut:    metrics.BidTimedOut,
	link.Lost:        metrics.BidLost,
	link.Withheld:    metrics.BidWithheld,
}

// endOf classifies the end of a process, as long as its state is that in which it
// ended.
func endOf(c *child, exit process.Exit) metrics.Count {
	switch stopped := c.state == process.Stopping; {
	case c.planned:
		return metrics.EndStopped
	case stopped && c.ready.IsZero():
		return metrics.EndNotReady
	case stopped:
		return metrics.EndUnwell
	case exit.Unknown:
		return metrics.EndUnknown
	case exit.Signal != "":
		return metrics.EndKilled
	case exit.Code != 0:
		return metrics.EndFailed
	}
	return metrics.EndExited
}
