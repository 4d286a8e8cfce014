package agent

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/agent/process"
)

// TestShortageIsNoFailure: what the machine lacks makes no crash loop, however often,
// and is tried again within seconds; a process that starts ends it.
func TestShortageIsNoFailure(t *testing.T) {
	l := loopWithLink(t)
	i := l.get("X")
	i.need = openNeed("X")
	m, _ := l.Catalogue.Find("probe")
	for range 2 * loopFrom {
		l.failed(i, m, fmt.Errorf("its start could not be recorded: %w", syscall.ENOSPC))
	}
	if got := l.snapshot(i); got.Failures != 0 || got.CrashLoop {
		t.Errorf("%+v", got)
	}
	if v := l.decide(i); v.Decision != DecisionBackoff || time.Until(v.retry) > rebidMost*5/4 {
		t.Errorf("decision %+v", v)
	}
	i = withChild(i, process.Starting)
	l.onStarted(i.child, nil, time.Now())
	if i.shortage != (pause{}) {
		t.Errorf("it has started and still lacks %+v", i.shortage)
	}

	other := l.get("Y")
	l.failed(other, m, &process.StartError{Problem: "there is no such file", Err: errors.Join(syscall.ENOENT)})
	if other.backoff.failures != 1 {
		t.Errorf("what the module lacks is no failure: %+v", other.backoff)
	}
}

// TestStuckDiskLeavesNeedsToOthers: bids go back, what waits for its record is not
// started, and what runs is none the worse for it; writes that end in another order
// than they were told of are counted all the same.
func TestStuckDiskLeavesNeedsToOthers(t *testing.T) {
	l := loopWithLink(t)
	waits, starts, runs := l.get("Waits"), withChild(l.get("Starts"), process.Starting), responded(l, "Runs")
	for _, i := range []*instance{waits, starts} {
		i.need, i.bid = openNeed(i.name), &bid{Bid: l.link.Bid(i.name), challenged: true}
	}
	for _, more := range []int{1, 1, -1} {
		l.onStuck(more, time.Now())
	}
	if waits.bid != nil || starts.bid != nil || runs.bid == nil {
		t.Errorf("bids of who waits, starts and runs: %v, %v, %v", waits.bid, starts.bid, runs.bid)
	}
	if !starts.child.isCancelled() || starts.child.state != process.Stopping || runs.child.state != process.Ready {
		t.Errorf("the start is %s, what runs is %s", starts.child.state, runs.child.state)
	}
	l.onStuck(-1, time.Now())
	if v := l.decide(waits); v.Decision != DecisionBid {
		t.Errorf("the disk goes on: %+v", v)
	}
	l.onStuck(-1, time.Now())
	l.onStuck(1, time.Now())
	if l.stuck != 0 {
		t.Errorf("%d writes wait", l.stuck)
	}
}
