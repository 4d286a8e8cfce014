package agent

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/allexgo/machine-agent/agent/process"
)

// This file is about what a start needs and the machine has none of: processes,
// descriptors, memory, a disk that takes what is written. That is no failure of the
// instance. Its need goes to others, and here it is tried again every few seconds, so
// that all goes on by itself when there is enough.

// shortages are the system's words for it.
var shortages = [...]error{
	syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE,
	syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO,
}

func isShortage(err error) bool {
	return slices.ContainsFunc(shortages[:], func(s error) bool { return errors.Is(err, s) })
}

// lacks takes note that an instance can not be started now, for the reason that
// stands in it. The LAN manager hears of it when it has lasted for as long as makes
// a crash loop of other failures.
func (l *loop) lacks(i *instance) {
	i.shortage.add(time.Now(), i.lastReason)
	if i.shortage.times == loopFrom {
		l.link.ReportFailing(i.name, i.lastReason, nil)
	}
}

// short answers for an instance that this machine can not start now.
func (l *loop) short(i *instance) (verdict, bool) {
	switch {
	case l.stuck > 0:
		return verdict{Decision: DecisionBackoff, detail: l.stuckText()}, true
	case time.Now().Before(i.shortage.until):
		return verdict{Decision: DecisionBackoff, detail: "this machine can not start it now: " + i.shortage.reason, retry: i.shortage.until}, true
	}
	return verdict{}, false
}

// onStuck is told when a write waits for the disk of the state directory, since when,
// and when one does no more. What can not be recorded is not started: meanwhile others
// may have its need.
func (l *loop) onStuck(more int, since time.Time) {
	was := l.stuck > 0
	l.stuck += more
	switch is := l.stuck > 0; {
	case is == was:
		return
	case is:
		l.stuckSince = since
		l.Logger.Error("nothing can be started: " + l.stuckText())
	default:
		l.Logger.Info("the disk takes what is written again", "after", time.Since(l.stuckSince))
	}
	for _, i := range l.instances {
		if l.stuck > 0 {
			l.leaveToOthers(i)
		}
		l.settle(i)
	}
}

// leaveToOthers gives up what has not become a process yet.
func (l *loop) leaveToOthers(i *instance) {
	switch {
	case i.child == nil || i.child.state == process.Emptying:
		if i.bid != nil && !i.bid.responded {
			l.cancelBid(i)
		}
	case i.child.state == process.Starting && i.child.pid() == 0:
		l.stop(i, l.stuckText(), true)
	}
}

func (l *loop) stuckText() string {
	return fmt.Sprintf("the state directory has not taken what is written since %s; see to the disk of %s", l.stuckSince.Format(time.TimeOnly), l.StateDirectory)
}

// diskWarnings tell of what is not on the disk.
func (l *loop) diskWarnings() (all []string) {
	if l.stuck > 0 {
		all = append(all, l.stuckText())
	}
	if owed := l.Store.Warning(); owed != "" {
		all = append(all, owed)
	}
	return all
}
