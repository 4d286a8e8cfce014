package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/allexgo/machine-agent/agent/metrics"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
)

// This file is the verdict on an instance that ends too soon time and again. It
// changes nothing of what is done: the back-off alone decides when it starts
// again. It is for people, here and on the LAN manager's page, and outlives the
// agent, as they would otherwise take a new agent for a cure.

// loopFrom is from which failure in a row on an instance is in a crash loop. With
// the usual back-off that is after two seconds of failing, in which no accident
// strikes five times.
const loopFrom = 5

// looping tells whether the instance is in a crash loop.
func (b *backoff) looping() bool { return b.failures >= loopFrom }

// describe is the verdict in words.
func (b *backoff) describe() string {
	return fmt.Sprintf("crash loop: ended too soon %d times in a row since %s", b.failures, b.since.Format(time.DateTime))
}

// fails takes note of an end, or of a start that failed, with the reason that
// stands in the instance. healthyFor is as in backoff.ended.
func (l *loop) fails(i *instance, healthyFor time.Duration, rules module.Backoff, exit *process.Exit) {
	was := i.backoff.looping()
	i.backoff.ended(time.Now(), healthyFor, rules)
	if i.backoff.failures > 0 {
		l.strayed(i)
	}
	switch is := i.backoff.looping(); {
	case is && !was:
		l.Figures.Count(metrics.CrashLoop)
		l.Logger.Error("an instance is in a crash loop; mend it, or `agentctl stop` it", "instance", i.name, "module", i.lastModule, "failures", i.backoff.failures, "last", i.lastReason)
		fallthrough
	case is:
		if !l.stale(i) { // else the report that is about to go says it
			l.link.ReportFailing(i.name, i.lastReason+"; "+i.backoff.describe(), exit)
		}
		l.keep()
	case was:
		l.keep()
	}
}

// awaitRecovery forgets the failures once the process has been healthy for the
// while that its module names.
func (l *loop) awaitRecovery(i *instance) {
	c := i.child
	if i.backoff.failures == 0 || c.module == nil {
		return
	}
	l.after(c.module.Backoff.Reset, i, func() {
		if i.child == c && i.ready() {
			l.Logger.Info("an instance is healthy again", "instance", i.name, "failures", i.backoff.failures)
			l.forgive(i)
			l.settle(i)
		}
	})
}

// forgive forgets the failures of an instance.
func (l *loop) forgive(i *instance) {
	was := i.backoff.looping()
	i.backoff = backoff{}
	if was {
		l.keep()
	}
}

// unlooped tells whether an idle instance is in no crash loop any more: whom nobody
// needs there is nothing to mend for. That a need is gone is certain when none has
// opened again and nobody serves it; without a session nothing is.
func (l *loop) unlooped(i *instance) bool {
	if i.idleSince.IsZero() {
		i.idleSince = time.Now()
	}
	if !i.backoff.looping() {
		return true
	}
	if !l.up {
		return false
	}
	since := i.idleSince
	if since.Before(l.linked.Since) {
		since = l.linked.Since
	}
	if until := since.Add(reopenWithin); time.Now().Before(until) {
		l.wakeUp(i, until)
		return false
	}
	l.Logger.Info("an instance in a crash loop is not needed any more, which ends the loop", "instance", i.name, "failures", i.backoff.failures)
	l.forgive(i)
	return true
}

// loops are the verdicts that outlive the agent, the worst first.
func (l *loop) loops() []state.Loop {
	var all []state.Loop
	for _, i := range l.instances {
		if b := &i.backoff; b.looping() {
			reason := i.lastReason
			if i.child != nil && i.child.exit != nil {
				reason = describeEnd(reason, *i.child.exit)
			}
			all = append(all, state.Loop{Instance: i.name, Module: i.lastModule, Failures: b.failures, Since: b.since, Until: b.until, Reason: reason, Exit: i.lastExit})
		}
	}
	slices.SortFunc(all, func(a, b state.Loop) int { return b.Failures - a.Failures })
	return all
}

// adoptLoop takes over a verdict. A clock that was wrong must not keep an instance
// from starting for longer than its back-off ever does.
func (l *loop) adoptLoop(v state.Loop) {
	i := l.get(v.Instance)
	now := time.Now()
	i.backoff = backoff{failures: v.Failures, since: v.Since}
	if m, ok := l.modules().Find(v.Module); ok && v.Until.After(now) {
		i.backoff.until = now.Add(min(v.Until.Sub(now), m.Backoff.Max))
	}
	i.lastModule, i.lastReason, i.lastExit, i.lastEnd = v.Module, v.Reason, v.Exit, now
	l.settle(i)
}

// times is how often something has happened.
func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
