package lanmanager

import (
	"context"
	"sync"
	"time"

	"github.com/allexgo/machine-agent/lanmanager/page"
)

// journal keeps the last events, in a ring.
type journal struct {
	events []page.Event
	next   int // where the oldest is, once the ring is full
}

const mostEvents = 1000

func (j *journal) add(kind, subject, text string) {
	e := page.Event{Time: time.Now(), Kind: kind, Subject: subject, Text: text}
	if len(j.events) < mostEvents {
		j.events = append(j.events, e)
		return
	}
	j.events[j.next] = e
	j.next = (j.next + 1) % mostEvents
}

// all is a copy, the oldest first.
func (j *journal) all() []page.Event {
	all := make([]page.Event, 0, len(j.events))
	return append(append(all, j.events[j.next:]...), j.events[:j.next]...)
}

// news is the revision of what can be seen of the LAN, for those who wait for
// the next. Its methods may be called from any goroutine.
type news struct {
	mu       sync.Mutex
	revision uint64
	newer    chan struct{} // closed with the next revision; nil: nobody waits
}

func (n *news) bump() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.revision++
	if n.newer != nil {
		close(n.newer)
		n.newer = nil
	}
}

func (n *news) now() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.revision
}

// wait waits for another revision than since and returns it. It gives up when
// one of the contexts ends.
func (n *news) wait(ctx, ending context.Context, since uint64) (uint64, error) {
	for {
		n.mu.Lock()
		if n.revision != since {
			defer n.mu.Unlock()
			return n.revision, nil
		}
		if n.newer == nil {
			n.newer = make(chan struct{})
		}
		newer := n.newer
		n.mu.Unlock()
		select {
		case <-newer:
		case <-ctx.Done():
			return since, context.Cause(ctx)
		case <-ending.Done():
			return since, errEnding
		}
	}
}
