package agent

import (
	"strings"
	"testing"

	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
)

// starting is an instance whose process is not ready, with a lease.
func starting(t *testing.T, l *loop, name string) (*instance, int) {
	t.Helper()
	i := withChild(l.get(name), process.Starting)
	ports, err := l.ports.Lease(port.Request{Instance: name, Protocols: []port.Protocol{port.TCP}, Mode: port.Reserved})
	if err != nil {
		t.Fatal(err)
	}
	i.child.ports = ports
	i.child.module, _ = l.Catalogue.Find("probe")
	return i, ports.TCP
}

// TestTheft: the end of a process that could not have its port is nobody's failure,
// and the next one gets another port; unless it happens again and again.
func TestTheft(t *testing.T) {
	l := loopWithLink(t)
	l.up = false // nothing starts by itself
	ports := map[int]bool{}
	for n := range mostThefts + 1 {
		x, number := starting(t, l, "X")
		if ports[number] {
			t.Errorf("the stolen port %d is given out again", number)
		}
		ports[number] = true
		l.onLeaderGone(x.child, process.Exit{Code: 1}, &theft{number, "pid 5 (thief)"})
		l.onEnded(x.child, process.Exit{Code: 1})
		if want := max(0, n+1-mostThefts); x.backoff.failures != want {
			t.Errorf("after %d thefts there are %d failures, want %d", n+1, x.backoff.failures, want)
		}
		if !strings.Contains(x.lastReason, "pid 5 (thief)") {
			t.Errorf("the reason is %q", x.lastReason)
		}
	}
	x, _ := starting(t, l, "X")
	l.onReady(x.child)
	if x.thefts != 0 {
		t.Errorf("%d thefts count after it was ready", x.thefts)
	}
}

// TestWithheldIsStopped: what turned out to be stolen when it was offered is stopped;
// what is not ours to start is withdrawn.
func TestWithheldIsStopped(t *testing.T) {
	for origin, want := range map[Origin]process.State{Started: process.Stopping, Outside: process.Withdrawn} {
		l := loopWithLink(t)
		x := responded(l, "X")
		x.child.origin = origin
		l.onLAN(link.BidEnded{Bid: x.bid.Bid, Outcome: link.Withheld, Err: &theft{15000, "another program"}})
		if x.child.state != want || x.bid != nil {
			t.Errorf("origin %d: it is %s, bid %v, want %s", origin, x.child.state, x.bid, want)
		}
	}
}
