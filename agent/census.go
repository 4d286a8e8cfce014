package agent

import (
	"context"
	"strings"
	"time"

	"github.com/allexgo/machine-agent/agent/metrics"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
)

// Census counts what there is now. Connections and Streams are not the agent's
// to count.
func (a *Agent) Census(ctx context.Context) (metrics.Census, error) {
	return ask(ctx, a, func(l *loop) (metrics.Census, error) { return l.census(), nil })
}

func (l *loop) census() metrics.Census {
	c := metrics.Census{
		Version: l.Version, Started: l.started, Linked: l.up, LinkSince: l.linked.Since,
		Queued: len(l.queue), Starting: l.inFlight,
		Processes: make(map[string]int), Places: make(map[string]int), Leases: make(map[string]int),
	}
	// What there is none of is told, too: a graph has no gaps then.
	for s := process.Starting; s < process.Ended; s++ {
		c.Processes[lower(s)] = 0
	}
	for p := PlaceServed; p <= PlaceUnneeded; p++ {
		c.Places[lower(p)] = 0
	}
	for s := port.StateReserved; s <= port.StateKept; s++ {
		c.Leases[lower(s)] = 0
	}
	now := time.Now()
	for _, i := range l.instances {
		count(&c.Needs, i.need != nil)
		count(&c.Services, i.service != nil)
		count(&c.Held, i.held)
		count(&c.Bids, i.bid != nil)
		count(&c.Looping, i.backoff.looping())
		count(&c.Waiting, i.child == nil && now.Before(i.backoff.until))
		if i.child != nil {
			c.Processes[lower(i.child.state)]++
		}
		if p := l.place(i); p != None {
			c.Places[lower(p)]++
		}
	}
	c.Served = c.Places[lower(PlaceServed)]
	for _, lease := range l.ports.All() {
		c.Leases[lower(lease.State)]++
	}
	return c
}

func count(n *int, one bool) {
	if one {
		*n++
	}
}

func lower(word interface{ String() string }) string { return strings.ToLower(word.String()) }
