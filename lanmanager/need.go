package lanmanager

import (
	"net/netip"
	"slices"
	"time"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// need is an open need with those who bid for it, one at a time.
type need struct {
	name       string
	constraint string // address or CIDR of the machine that may serve it; "" any
	timeout    time.Duration
	bidders    []*bidder // all sessions on it
	queue      []*bidder // those that wait for their challenge, in order of their bids
	bid        *bid      // the one that was challenged
}

// bid is the bid that has the need for now.
type bid struct {
	bidder   *bidder
	ticket   string
	timer    *time.Timer
	response *wire.Request // being checked
	expired  bool          // while it was being checked
}

// openNeed makes the need of an original open, unless it is already, or is
// served, or nobody wants it.
func (l *lan) openNeed(name string) {
	record, wanted := l.originals.record(name)
	if _, served := l.services.Get(name); !wanted || served || l.open[name] != nil {
		return
	}
	if err := l.needs.Create(record); err != nil {
		l.log.Error("need can not be opened", "instance", name, "error", err)
		return
	}
	view := table.ParseNeed(record)
	l.open[name] = &need{name: name, constraint: view.IPAddress, timeout: timeout(view.Timeout)}
	l.log.Debug("need open", "instance", name)
	for u := range l.watchers {
		u.needOpened(name)
	}
}

// timeout is how long a bid may hold a need; what makes no sense as a number of
// seconds is the original's default.
func timeout(seconds int) time.Duration {
	const most = 365 * 24 * 3600
	if seconds <= 0 || seconds > most {
		seconds = 60
	}
	return time.Duration(seconds) * time.Second
}

// closeNeed takes a need off the table and ends the sessions on it.
func (l *lan) closeNeed(n *need) {
	l.needs.Delete(table.Eq("instancename", n.name))
	delete(l.open, n.name)
	if n.bid != nil && n.bid.response != nil {
		n.bid.response.Reject(alreadyDestroyed, "the need of this bid is gone")
	}
	n.queue = nil // so that no bidder gets the need while the others leave
	for _, b := range slices.Clone(n.bidders) {
		b.session.End()
	}
}

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
	if n.bid != nil || len(n.queue) == 0 {
		return
	}
	b := n.queue[0]
	n.queue = n.queue[1:]
	held := &bid{bidder: b, ticket: l.newID()}
	held.timer = l.crew.after(n.timeout, func() { n.expire(l, held) })
	n.bid = held
	b.bid.Resolve(challenge{Bid: held.ticket, Challenge: true})
	b.bid = nil
}

type challenge struct {
	Bid       string `json:"bid"`
	Challenge bool   `json:"c"`
}

// expire takes back a bid that was not answered in time. One that is answered
// at this moment keeps its chance.
func (n *need) expire(l *lan, held *bid) {
	if n.bid != held {
		return
	}
	if held.response != nil {
		held.expired = true
		return
	}
	l.log.Info("bid taken back: not answered in time", "instance", n.name,
		"bidder", held.bidder.party.owner, "timeout", n.timeout)
	held.bidder.session.End()
}

// leave takes a bidder out, and gives its bid to the next.
func (n *need) leave(l *lan, b *bidder) {
	is := func(other *bidder) bool { return other == b }
	n.bidders = slices.DeleteFunc(n.bidders, is)
	n.queue = slices.DeleteFunc(n.queue, is)
	if n.bid != nil && n.bid.bidder == b {
		n.bid.timer.Stop()
		n.bid = nil
		n.challenge(l)
	}
}
