package metrics

import (
	"fmt"
	"time"
)

// Census is what there is at one moment, counted anew each time. A key that is
// not there is a 0 that is not told.
type Census struct {
	Version string
	Started time.Time

	Linked    bool
	LinkSince time.Time // of being linked, or of not being it
	Needs     int       // open ones of the LAN
	Services  int       // of the LAN
	Served    int       // of these, here
	Held      int
	Waiting   int // instances with a back-off
	Looping   int // instances in a crash loop
	Queued    int // instances that wait for one of the starts under way to end, or for a place
	Starting  int // starts under way
	Bids      int // offers that are out

	Processes map[string]int // by state
	Places    map[string]int // live processes, by place
	Leases    map[string]int // ports, by the state of their lease

	Connections int // to the API
	Streams     int // calls of the API that last, such as watches
}

// each tells every gauge.
func (c Census) each(tell func(name string, value float64)) {
	number := func(name string, n int) { tell(name, float64(n)) }
	by := func(name, label string, numbers map[string]int) {
		for value, n := range numbers {
			number(labelled(name, label, value), n)
		}
	}
	tell(labelled(agentInfo, "version", c.Version), 1)
	tell(agentStart, seconds(c.Started))
	linked := 0
	if c.Linked {
		linked = 1
	}
	number(linkUp, linked)
	tell(linkSince, seconds(c.LinkSince))
	number(needsOpen, c.Needs)
	number(services, c.Services)
	number(servicesHere, c.Served)
	number(held, c.Held)
	number(waiting, c.Waiting)
	number(looping, c.Looping)
	number(queued, c.Queued)
	number(starting, c.Starting)
	number(bidsOut, c.Bids)
	by(processes, "state", c.Processes)
	by(places, "place", c.Places)
	by(leases, "state", c.Leases)
	number(connections, c.Connections)
	number(streams, c.Streams)
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// labelled is a name with one label.
func labelled(name, label, value string) string { return fmt.Sprintf("%s{%s=%q}", name, label, value) }
