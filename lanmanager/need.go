package lanmanager

import (
	"container/list"
	"net/netip"
	"time"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
	"github.com/allexgo/machine-agent/lanmanager/page"
)

// need is an open need with those who bid for it, one at a time.
type need struct {
	name       string
	constraint string // address or CIDR of the machine that may serve it; "" any
	timeout    time.Duration
	bidders    []*bidder // all sessions on it, in no order
	queue      list.List // of *bidder: those that wait for their challenge, in order of their bids
	bid        *bid      // the one that was challenged
	closed     bool

	// For people, why it is open.
	since   time.Time
	ended   string // why its last service did; "" it had none
	bids    int
	failure string // of the last bid; "" none
	failing bool   // a machine has said that it can not serve it
}

// bid is the bid that has the need for now.
type bid struct {
	bidder   *bidder
	ticket   string
	since    time.Time
	timer    *time.Timer
	response *wire.Request // being checked
	expired  bool          // while it was being checked
}

// openNeed makes the need of an original open and tells whether it did: not if
// it is already, or is served, or nobody wants it.
func (l *lan) openNeed(name string) bool {
	record, wanted := l.originals.record(name)
	if !wanted || l.serving[name] != nil || l.open[name] != nil {
		return false
	}
	if err := l.needs.Create(record); err != nil {
		l.log.Error("need can not be opened", "instance", name, "error", err)
		return false
	}
	view := table.ParseNeed(record)
	l.open[name] = &need{name: name, constraint: view.IPAddress, timeout: timeout(view.Timeout), since: time.Now()}
	l.changed = true
	l.log.Debug("need open", "instance", name)
	l.leadIn(name)
	return true
}

const (
	usualSeconds = 60 // as the table of needs has it
	year         = 365 * 24 * 3600
)

// timeout is how long a bid may hold a need; what makes no sense as a number of
// seconds is the original's default.
func timeout(seconds int) time.Duration {
	if seconds <= 0 || seconds > year {
		seconds = usualSeconds
	}
	return time.Duration(seconds) * time.Second
}

// closeNeed takes a need off the table and ends the sessions on it.
func (l *lan) closeNeed(n *need) {
	l.needs.Delete(table.Eq("instancename", n.name))
	delete(l.open, n.name)
	l.changed = true
	n.closed = true
	if n.bid != nil {
		n.bid.timer.Stop()
		if n.bid.response != nil {
			n.bid.response.Reject(alreadyDestroyed, "the need of this bid is gone")
		}
	}
	for _, b := range n.bidders {
		if n.bid != nil && n.bid.bidder == b && b.party.owner.id == "" {
			l.crew.after(farewell, b.session.Dismiss())
		} else {
			b.session.End()
		}
	}
}

// farewell is how long an original that has just won is not told that its session
// on the need has ended. Being accepted it ends the session itself; one that hears
// of the end before that bids for the need again, which costs it the bid after
// the next death. The original takes some 10 ms.
const farewell = 50 * time.Millisecond

// admits tells whether a machine with this address may serve the need.
func (n *need) admits(address string) bool {
	if n.constraint == "" || n.constraint == address {
		return true
	}
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	if network, err := netip.ParsePrefix(n.constraint); err == nil {
		return network.Contains(ip)
	}
	exact, err := netip.ParseAddr(n.constraint)
	return err == nil && exact == ip
}

// challenge gives the need to the first in the queue, if it is free.
func (n *need) challenge(l *lan) {
	first := n.queue.Front()
	if n.bid != nil || first == nil {
		return
	}
	b := n.queue.Remove(first).(*bidder)
	held := &bid{bidder: b, ticket: l.newID(), since: time.Now()}
	held.timer = l.crew.after(n.timeout, func() { n.expire(l, held) })
	n.bid = held
	l.metrics.challenges.Inc()
	b.bid.Resolve(challenge{Bid: held.ticket, Challenge: true})
	b.bid, b.place = nil, nil
}

type challenge struct {
	Bid       string `json:"bid"`
	Challenge bool   `json:"c"`
}

// expire takes back a bid that was not answered in time. One that is answered
// at this moment keeps its chance.
func (n *need) expire(l *lan, held *bid) {
	if n.bid != held || n.closed {
		return
	}
	if held.response != nil {
		held.expired = true
		return
	}
	who := held.bidder.party.name
	l.log.Info("bid taken back: not answered in time", "instance", n.name,
		"bidder", held.bidder.party.owner, "timeout", n.timeout)
	l.note(page.BidTakenBack, n.name, who+" did not answer within "+n.timeout.String())
	l.metrics.takenBack.Inc()
	n.failure = who + " bid for it and did not answer within " + n.timeout.String()
	held.bidder.session.End()
}

// leave takes a bidder out, and gives its bid to the next.
func (n *need) leave(l *lan, b *bidder) {
	if n.closed { // all of them leave
		return
	}
	l.changed = true
	last := n.bidders[len(n.bidders)-1]
	n.bidders[b.index], last.index = last, b.index
	n.bidders[len(n.bidders)-1] = nil
	n.bidders = n.bidders[:len(n.bidders)-1]
	if b.place != nil {
		n.queue.Remove(b.place)
	}
	if n.bid != nil && n.bid.bidder == b {
		n.bid.timer.Stop()
		n.bid = nil
		n.challenge(l)
	}
}

// enter takes a bidder in.
func (n *need) enter(b *bidder) {
	b.index = len(n.bidders)
	n.bidders = append(n.bidders, b)
}
