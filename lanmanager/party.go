package lanmanager

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/allexgo/machine-agent/lan/wire"
	"github.com/allexgo/machine-agent/lanmanager/page"
)

// owner is whose a service is: an agent's by its id or, of peers without one, all
// those of an address. It is the address that they come from, which need not be
// the one that their services have: so they are missed when they are gone.
type owner struct{ id, address string }

func (o owner) String() string {
	if o.id != "" {
		return "agent " + o.id
	}
	return "address " + o.address
}

// party is an owner with live sessions, or with services that it has not
// confirmed yet.
type party struct {
	owner       owner
	name        string     // for people: as its last session said
	address     netip.Addr // of its live sessions, or the last ones
	proof       string     // that its sessions have shown, see door.proof
	since       time.Time  // of the change of connected
	sessions    int        // on the LAN manager itself
	envelopes   map[Envelope]int
	services    map[string]*service // all that are its own
	unconfirmed map[string]*service
	doubts      int       // how often it was said when they go
	until       time.Time // when they do
	checks      checkQueue
}

// service is what there is to the record of a service.
type service struct {
	name   string
	party  *party
	number int // ascending in the order of their table
	since  time.Time
}

// arrive counts a session in. One without an id wipes the services of its
// address, as in the original; one with an id has to confirm its services. An
// id belongs to the address, and to the certificate or the token, of the one
// who has it, until nothing is left of that one.
func (l *lan) arrive(v *visitor, id, name string) (*party, *wire.RejectedError) {
	o := owner{id: id}
	if id == "" {
		o.address = v.address.String()
	}
	p := l.parties[o]
	if p == nil {
		p = &party{owner: o, proof: v.proof, envelopes: map[Envelope]int{}, services: map[string]*service{}}
		l.parties[o] = p
	}
	switch {
	case p.sessions > 0 && p.address != v.address:
		return nil, rejected("ID_IN_USE", "the agent with this id has a session from "+p.address.String())
	case id != "" && p.proof != v.proof:
		return nil, rejected("ID_IN_USE", "the agent with this id has shown another certificate or token")
	}
	if p.sessions == 0 {
		p.since = time.Now()
		l.machines++
	}
	p.sessions++
	l.sessions++
	p.envelopes[v.envelope]++
	p.address, p.name = v.address, name
	if id == "" {
		l.wipe(p.services, l.metrics.replaced, "a new session from its address")
	} else {
		l.doubt(p, l.confirmTime)
	}
	l.changed = true
	return p, nil
}

// leave counts a session out. With the last one go the services of an address;
// an agent may come back for its own within the grace.
func (l *lan) leave(p *party, v *visitor) {
	l.changed = true
	l.sessions--
	p.envelopes[v.envelope]--
	if p.sessions--; p.sessions > 0 {
		return
	}
	l.machines--
	p.since = time.Now()
	l.log.Info("last session ended", "owner", p.owner)
	l.note(page.SessionEnded, p.name, p.owner.String()+" has no session any more")
	if p.owner.id == "" {
		l.wipe(p.services, l.metrics.left, "the last session from its address ended")
		l.forget(p)
	} else {
		l.doubt(p, l.grace)
	}
}

// doubt makes the services of an agent unconfirmed.
func (l *lan) doubt(p *party, within time.Duration) {
	p.unconfirmed = maps.Clone(p.services)
	l.expect(p, within)
	l.forget(p)
}

// expect has the services go that are not confirmed within so long.
func (l *lan) expect(p *party, within time.Duration) {
	p.doubts++
	p.until = time.Now().Add(within)
	if doubt := p.doubts; len(p.unconfirmed) > 0 {
		l.crew.after(within, func() {
			if p.doubts == doubt {
				l.wipe(p.unconfirmed, l.metrics.doubted, "its agent has not confirmed it")
			}
		})
	}
}

// forget drops a party of which there is nothing left to know.
func (l *lan) forget(p *party) {
	if p.sessions == 0 && len(p.services) == 0 {
		delete(l.parties, p.owner)
	}
}

// confirm keeps those of the names that are services of the party, and returns
// them. Who has begun to confirm has read the tables: the grace is enough for
// the rest.
func (l *lan) confirm(p *party, names []string) []string {
	kept := []string{}
	for _, name := range names {
		if p.services[name] != nil {
			delete(p.unconfirmed, name)
			kept = append(kept, name)
		}
	}
	if time.Until(p.until) > l.grace {
		l.expect(p, l.grace)
	}
	l.changed = true
	return kept
}

// wipe takes services down, in the order of their table.
func (l *lan) wipe(services map[string]*service, class prometheus.Counter, reason string) {
	byNumber := func(a, b *service) int { return cmp.Compare(a.number, b.number) }
	for _, s := range slices.SortedFunc(maps.Values(services), byNumber) {
		l.serviceDown(s.name, class, reason)
	}
}
