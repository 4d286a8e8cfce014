package agent

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// These tests are sequences of events that once went wrong. The loop has no
// session behind it: what it asks the link for goes nowhere.

func loopWithLink(t *testing.T) *loop {
	l := loopAt(t)
	l.Agent.inbox = make(chan func(*loop), 256)
	l.Agent.done = make(chan struct{})
	l.Agent.link = link.New(link.Config{Emit: l.Agent.onLink, Logger: l.Logger})
	l.engaged = map[string]bool{}
	t.Cleanup(func() {
		for _, i := range l.instances {
			l.disarm(i)
		}
	})
	return l
}

func openNeed(name string) *table.Need {
	return &table.Need{InstanceName: name, ModuleName: "probe"}
}

// responded is an instance whose running process has been offered.
func responded(l *loop, name string) *instance {
	i := withChild(l.get(name), process.Ready)
	i.need = openNeed(name)
	i.bid = &bid{Bid: &link.Bid{Instance: name}, need: i.need, challenged: true, responded: true}
	i.child.offered = true
	return i
}

// TestQueueKeepsItsInstances: whoever waits for a place is not forgotten while
// others have the need, so that the queue never holds somebody else of that
// name.
func TestQueueKeepsItsInstances(t *testing.T) { synctest.Test(t, queueKeepsItsInstances) }

func queueKeepsItsInstances(t *testing.T) {
	l := loopWithLink(t)
	l.MaxProcesses = 1
	full := withChild(l.get("Full"), process.Ready)
	l.count(full)
	l.onNeed(openNeed("X"))
	l.onNeedGone("X") // another machine has it
	l.onNeed(openNeed("X"))
	full.child = nil // a place becomes free
	l.settle(full)
	l.startQueued()
	for range 2 { // the bid ends once or not at all
		settled(l)
		l.startQueued()
	}
	if l.instances["X"] == nil {
		t.Error("the need is open and its instance forgotten")
	}
	if l.occupied != 0 || l.inFlight != 0 {
		t.Errorf("%d places and %d starts are taken by nobody", l.occupied, l.inFlight)
	}
}

// A full machine remembers no needs that others serve.
func TestQueueForgetsWhatOthersServe(t *testing.T) {
	l := loopWithLink(t)
	l.MaxProcesses = 1
	l.count(withChild(l.get("Full"), process.Ready))
	for n := range 100 {
		name := fmt.Sprintf("session-%d", n)
		l.onNeed(openNeed(name))
		l.onNeedGone(name)
	}
	if len(l.queue) != 0 {
		t.Errorf("%d are in the queue", len(l.queue))
	}
}

// TestChallengeIsGivenBackWhileBusy: a challenge that can not be met now goes
// to others at once.
func TestChallengeIsGivenBackWhileBusy(t *testing.T) {
	l := loopWithLink(t)
	l.MaxProcesses = startsAtOnce()
	x := l.get("X")
	x.need = openNeed("X")
	x.bid = &bid{Bid: l.link.Bid("X"), pending: true}
	for k := range startsAtOnce() {
		i := withChild(l.get(string(rune('a'+k))), process.Starting)
		i.need = nil
		l.count(i)
	}
	l.onChallenged(x.bid.Bid)
	if x.bid != nil {
		t.Error("the bid is still out")
	}
	if v := l.decide(x); v.Decision != DecisionCapacity {
		t.Errorf("decision %+v", v)
	}
}

// TestPortsMovedWhileResponding: the record with the ports before is taken off
// the table, and the healthy process is not stopped for it.
func TestPortsMovedWhileResponding(t *testing.T) {
	l := loopWithLink(t)
	l.OrphanGrace = 10 * time.Second
	x := responded(l, "X")
	if err := l.ports.Adopt("X", x.child.ports); err != nil {
		t.Fatal(err)
	}
	if err := l.movePorts(x, table.Ports{TCP: 15000, WS: 17005}); err != nil {
		t.Fatal(err)
	}
	l.settle(x)
	l.onLAN(link.NeedGone{Instance: "X"})
	l.onLAN(link.ServiceSet{Service: table.Service{InstanceName: "X", IPAddress: "10.0.0.1", Ports: table.Ports{TCP: 15000}}})
	if !x.reported || x.orphan != nil {
		t.Errorf("reported %v, to be stopped %v; want true, false", x.reported, x.orphan != nil)
	}
}

// TestEarlyBidKeepsTheCapacity: a replacement takes the place of what it
// replaces, and no other.
func TestEarlyBidKeepsTheCapacity(t *testing.T) {
	l := loopWithLink(t)
	l.MaxProcesses = 1
	l.count(withChild(l.get("Full"), process.Ready))
	x := l.get("X")
	x.lastModule = "probe"
	x.ghost = &table.Ports{TCP: 15000}
	servedAt(x, "10.0.0.1")
	l.settle(x)
	if x.bid != nil || l.occupied > l.MaxProcesses {
		t.Errorf("bid %v, %d of %d places", x.bid, l.occupied, l.MaxProcesses)
	}
}

// TestHoldHoldsWhatRuns: a held process that an agent before could not stop any
// more is not offered.
func TestHoldHoldsWhatRuns(t *testing.T) {
	l := loopWithLink(t)
	x := withChild(needed(), process.Ready)
	x.held = true
	if v := l.decide(x); v.Decision != DecisionHeld {
		t.Errorf("decision %+v", v)
	}
}

// TestUnreachableIsAFailure: however long it took to find out.
func TestUnreachableIsAFailure(t *testing.T) {
	l := loopWithLink(t)
	x := responded(l, "X")
	x.child.module, _ = l.Catalogue.Find("probe")
	x.child.ready = time.Now().Add(-time.Hour)
	l.onLAN(link.BidEnded{Bid: x.bid.Bid, Outcome: link.Unreachable})
	l.onLeaderGone(x.child, process.Exit{Code: 1}, nil)
	if x.backoff.failures != 1 {
		t.Errorf("%d failures", x.backoff.failures)
	}
}

// TestOutsideIsWithdrawnIfUnreachable: it is not ours to end.
func TestOutsideIsWithdrawnIfUnreachable(t *testing.T) {
	l := loopWithLink(t)
	x := responded(l, "X")
	x.child.origin = Outside
	l.onLAN(link.BidEnded{Bid: x.bid.Bid, Outcome: link.Unreachable})
	if x.child.state != process.Withdrawn {
		t.Errorf("it is %s", x.child.state)
	}
}

// TestAcceptedLate: the word of a bid can come after the need has opened again.
func TestAcceptedLate(t *testing.T) {
	l := loopWithLink(t)
	x := responded(l, "X")
	b := x.bid.Bid
	l.onLAN(link.NeedGone{Instance: "X"})
	l.onLAN(link.ServiceSet{Service: table.Service{InstanceName: "X", IPAddress: "10.0.0.1", Ports: table.Ports{TCP: 15000}}})
	l.onLAN(link.ServiceGone{Instance: "X"})
	l.onLAN(link.NeedOpened{Need: *openNeed("X")})
	l.onLAN(link.BidEnded{Bid: b, Outcome: link.Accepted})
	if x.need == nil {
		t.Error("the need that opened again is forgotten")
	}
}

// TestLostBidWaitsForTheEndOfItsSession: no bid follows a lost one before.
func TestLostBidWaitsForTheEndOfItsSession(t *testing.T) {
	l := loopWithLink(t)
	x := l.get("X")
	x.need = openNeed("X")
	l.settle(x) // there is no session: the bid is lost
	(<-l.inbox)(l)
	if x.bid != nil || l.inFlight != 0 {
		t.Errorf("bid %v, %d starts under way", x.bid, l.inFlight)
	}
}

// TestResumeOfWhatIsNotWell: a process that is drained and not well either has to
// be both resumed and well again.
func TestResumeOfWhatIsNotWell(t *testing.T) {
	l := loopWithLink(t)
	x := withChild(l.get("X"), process.Ready)
	x.child.origin = Outside
	l.isDrained = true
	l.evict(x, drainedAway)
	l.onHealth(x.child, errors.New("no answer"))
	l.isDrained = false
	l.readmit(x)
	if x.child.state != process.Withdrawn {
		t.Errorf("resumed, not well: it is %s", x.child.state)
	}
	l.onHealth(x.child, nil)
	if x.child.state != process.Ready {
		t.Errorf("resumed and well: it is %s", x.child.state)
	}
}
