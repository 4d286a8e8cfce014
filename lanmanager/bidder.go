package lanmanager

import (
	"container/list"
	"encoding/json"

	"github.com/allexgo/machine-agent/lan/wire"
)

// bidder is the user of a session on one need (PROTOCOL section 8).
type bidder struct {
	lan     *lan
	need    *need
	party   *party
	name    string // as which its owner is seen
	address string // of the peer
	session *wire.ServerSession
	bid     *wire.Request // waiting for its challenge
	place   *list.Element // of it, in the need's queue
	index   int           // in the need's bidders
}

const (
	alreadyDestroyed = "ALREADY_DESTROYED"
	noPortsReachable = "NO_PORTS_REACHABLE"
)

// Opened implements wire.User.
func (b *bidder) Opened(s *wire.ServerSession) { s.State("name", b.name) }

// Closed implements wire.User.
func (b *bidder) Closed() {
	if b.session != nil { // else it was never on the need
		b.need.leave(b.lan, b)
	}
}

// Call implements wire.User.
func (b *bidder) Call(r *wire.Request) {
	switch r.Method {
	case "!bid":
		if offering, ok := r.Object(0, "Bid offering"); ok {
			b.offer(r, offering)
		}
	case "!respond":
		ticket, ok := r.String(0, "Bid ticket")
		if !ok {
			return
		}
		if response, ok := r.Object(1, "Bid response"); ok {
			b.respond(r, ticket, response)
		}
	default:
		r.Unknown()
	}
}

func (b *bidder) offer(r *wire.Request, offering fields) {
	n := b.need
	b.lan.metrics.bids.Inc()
	b.lan.changed = true
	n.bids++
	switch offered := offering.textOr("ipaddress", b.address); {
	case !n.admits(offered):
		n.failure = b.party.name + " bid for it from " + excerpt([]byte(offered)) + ", which is not in " + n.constraint
		r.Resolve(json.RawMessage(`{"rejected":true}`))
	case n.bid != nil && n.bid.bidder == b: // asked again: the same answer
		r.Resolve(challenge{Bid: n.bid.ticket, Challenge: true})
	case b.bid != nil:
		r.Reject("BID_PENDING", "this session waits for its challenge already")
	default:
		b.bid, b.place = r, n.queue.PushBack(b)
		n.challenge(b.lan)
	}
}

// respond has the ports of a response tried; tried goes on from there.
func (b *bidder) respond(r *wire.Request, ticket string, response fields) {
	held := b.need.bid
	a := newAnswer(response, b.address)
	reject := func(code, message string) {
		b.lan.metrics.invalid.Inc()
		r.Reject(code, message)
	}
	switch {
	case held == nil || held.bidder != b || held.ticket != ticket:
		reject(alreadyDestroyed, "this session has no bid with that ticket")
	case held.response != nil:
		reject("RESPONSE_PENDING", "the ports of the response before are still being tried")
	case a.pid == nil:
		reject("PID_MISSING", "a response must have the pid of the process, a number")
	default:
		held.response = r
		b.lan.changed = true
		b.lan.checks.add(b.party, check{answer: a,
			wanted: func() bool { return b.need.bid == held && !b.need.closed },
			done:   func(ok bool) { b.tried(held, a, ok) }})
	}
}

// tried is the end of the port check.
func (b *bidder) tried(held *bid, a answer, ok bool) {
	l, r := b.lan, held.response
	held.response = nil
	l.changed = true
	switch {
	case !ok:
		l.metrics.unreachable.Inc()
		text := "none of the ports " + a.ports.String() + " of " + a.address + " accepts a connection"
		b.need.failure = b.party.name + " started it, but " + text
		r.Reject(noPortsReachable, text)
		if held.expired {
			b.session.End()
		}
	case b.party.sessions == 0: // nobody would notice the end of this service's agent
		l.metrics.invalid.Inc()
		r.Reject(alreadyDestroyed, "the session that this bid began with has ended")
		b.session.End()
	default:
		l.metrics.accepted.Inc()
		r.Resolve(accepted{held.ticket})
		l.serviceUp(b.need, b.party, a)
	}
}

type accepted struct {
	Ticket string `json:"a"`
}
