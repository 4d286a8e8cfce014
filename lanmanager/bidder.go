package lanmanager

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

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
}

const (
	alreadyDestroyed = "ALREADY_DESTROYED"
	noPortsReachable = "NO_PORTS_REACHABLE"
)

func (b *bidder) Opened(s *wire.ServerSession) { s.State("name", b.name) }

func (b *bidder) Closed() { b.need.leave(b.lan, b) }

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
	switch {
	case !n.admits(offering.textOr("ipaddress", b.address)):
		r.Resolve(json.RawMessage(`{"rejected":true}`))
	case n.bid != nil && n.bid.bidder == b: // asked again: the same answer
		r.Resolve(challenge{Bid: n.bid.ticket, Challenge: true})
	case b.bid != nil:
		r.Reject("BID_PENDING", "this session waits for its challenge already")
	default:
		b.bid = r
		n.queue = append(n.queue, b)
		n.challenge(b.lan)
	}
}

// respond has the ports of a response tried; tried goes on from there.
func (b *bidder) respond(r *wire.Request, ticket string, response fields) {
	held := b.need.bid
	a := newAnswer(response, b.address)
	switch {
	case held == nil || held.bidder != b || held.ticket != ticket:
		r.Reject(alreadyDestroyed, "this session has no bid with that ticket")
	case held.response != nil:
		r.Reject("RESPONSE_PENDING", "the ports of the response before are still being tried")
	case a.pid == nil:
		r.Reject("PID_MISSING", "a response must have the pid of the process, a number")
	default:
		held.response = r
		b.party.tryPorts(b.lan.crew, a, func(ok bool) { b.tried(held, a, ok) })
	}
}

// tried is the end of the port check.
func (b *bidder) tried(held *bid, a answer, ok bool) {
	if b.need.bid != held {
		return
	}
	r := held.response
	held.response = nil
	switch {
	case !ok:
		r.Reject(noPortsReachable, "none of the ports "+a.ports.String()+" of "+a.address+" accepts a connection")
		if held.expired {
			b.session.End()
		}
	case b.party.sessions == 0: // nobody would notice the end of this service's agent
		r.Reject(alreadyDestroyed, "the session that this bid began with has ended")
		b.session.End()
	default:
		r.Resolve(accepted{held.ticket})
		b.lan.serviceUp(b.need, b.party.owner, a)
	}
}

type accepted struct {
	Ticket string `json:"a"`
}

// answer is what a response says. What is of the wrong kind counts as absent.
type answer struct {
	address string
	pid     json.RawMessage // nil: none
	ports   ports
	options fields
}

var (
	portFields   = []string{"tcpport", "httpport", "wsport"} // in the order of the check
	optionFields = []string{"tcpoptions", "httpoptions", "wsoptions"}
)

// ports are those of portFields; 0 is none.
type ports [3]int

func (p ports) given() []int { return slices.DeleteFunc(p[:], func(n int) bool { return n == 0 }) }

func (p ports) String() string {
	var texts []string
	for i, n := range p {
		if n != 0 {
			texts = append(texts, portFields[i]+" "+strconv.Itoa(n))
		}
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

func newAnswer(response fields, peer string) answer {
	a := answer{address: response.textOr("ipaddress", peer), options: response}
	for i, field := range portFields {
		a.ports[i] = response.port(field)
	}
	if pid := response["pid"]; len(pid) > 0 && (pid[0] == '-' || '0' <= pid[0] && pid[0] <= '9') {
		a.pid = pid
	}
	return a
}

// served is what the winner's response sets in the record of the need, so that
// who watches the needs knows who won with which ports.
func (a answer) served() json.RawMessage {
	set := a.fields()
	set["pid"] = a.pid
	return marshal(set)
}

// service is what it sets in the record of the service.
func (a answer) service(created time.Time) json.RawMessage {
	set := a.fields()
	set["created"] = created.UnixMilli()
	return marshal(set)
}

func (a answer) fields() map[string]any {
	set := map[string]any{"ipaddress": a.address}
	for i, field := range portFields {
		set[field] = nil // explicitly: an absent port would be 0
		if a.ports[i] != 0 {
			set[field] = a.ports[i]
		}
	}
	for _, field := range optionFields {
		set[field] = a.options[field]
	}
	return set
}

// tryPorts tries the ports of an answer. A party has a bounded number of checks
// under way, so that unreachable ports of one hold up no other.
func (p *party) tryPorts(crew *crew, a answer, done func(ok bool)) {
	crew.outside(func(ctx context.Context) func() {
		select {
		case p.checks <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		ok := reachable(ctx, a.address, a.ports.given())
		<-p.checks
		return func() { done(ok) }
	})
}
