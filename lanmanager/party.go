package lanmanager

import (
	"encoding/json"
	"net/netip"

	"github.com/allexgo/machine-agent/lan/wire"
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
	address     netip.Addr // of its live sessions, or the last ones
	sessions    int        // on the LAN manager itself
	unconfirmed map[string]struct{}
	doubts      int           // how often its services became unconfirmed
	checks      chan struct{} // holds one for each port check under way
}

const checksAtOnce = 64 // port checks of one party

// introduce is the LAN manager's door: the strategy ip with a name, the role
// user and, from an agent of this project, its id (design section 8).
func (l *lan) introduce(peer netip.Addr, credentials json.RawMessage) (wire.Grant, error) {
	var strategies struct {
		IP fields `json:"ip"`
	}
	if json.Unmarshal(credentials, &strategies) != nil || strategies.IP == nil {
		return wire.Grant{}, refused("STRATEGY_UNKNOWN", "the strategy that is known here is ip")
	}
	switch c := strategies.IP; {
	case !peer.IsLoopback():
		return wire.Grant{}, refused("ADDRESS_NOT_ADMITTED", "only peers of this machine are admitted")
	case !truthy(c["name"]):
		return wire.Grant{}, refused("NAME_MISSING", "the credentials have no name")
	case len(c.text("id")) > 255:
		return wire.Grant{}, refused("ID_TOO_LONG", "an id has at most 255 bytes")
	case c.text("role") != role:
		return wire.Grant{}, refused("ROLE_UNKNOWN", "the role that is known here is user")
	default:
		p, err := l.arrive(c.text("id"), peer)
		if err != nil {
			return wire.Grant{}, err
		}
		l.log.Info("session begun", "peer", peer, "owner", p.owner, "name", excerpt(c["name"]))
		return wire.Grant{Role: role, ModuleName: "allex_lanmanagerservice", User: &lanUser{lan: l, party: p}}, nil
	}
}

func refused(code, message string) error { return &wire.RejectedError{Code: code, Message: message} }

// truthy is what JavaScript takes for true.
func truthy(value json.RawMessage) bool {
	switch string(value) {
	case "", "null", "false", `""`, "0", "-0":
		return false
	}
	return true
}

// arrive counts a session in. One without an id wipes the services of its
// address, as in the original; one with an id has to confirm its services.
func (l *lan) arrive(id string, peer netip.Addr) (*party, error) {
	o := owner{id: id}
	if id == "" {
		o.address = peer.String()
	}
	p := l.parties[o]
	if p == nil {
		p = &party{owner: o, checks: make(chan struct{}, checksAtOnce)}
		l.parties[o] = p
	}
	if p.sessions > 0 && p.address != peer {
		return nil, refused("ID_IN_USE", "the agent with this id has a session from "+p.address.String())
	}
	p.sessions++
	p.address = peer
	if id == "" {
		l.wipe(l.servicesOf(o), "a new session from its address")
	} else {
		l.doubt(p)
	}
	return p, nil
}

// leave counts a session out. With the last one go the services of an address;
// an agent may come back for its own within the grace.
func (l *lan) leave(p *party) {
	p.sessions--
	if p.sessions > 0 {
		return
	}
	l.log.Info("last session ended", "owner", p.owner)
	if p.owner.id == "" {
		delete(l.parties, p.owner)
		l.wipe(l.servicesOf(p.owner), "the last session from its address ended")
	} else {
		l.doubt(p)
	}
}

// doubt makes the services of an agent unconfirmed. Those that are not confirmed
// when the grace is over go.
func (l *lan) doubt(p *party) {
	p.unconfirmed = l.servicesOf(p.owner)
	p.doubts++
	if doubt := p.doubts; len(p.unconfirmed) > 0 {
		l.crew.after(l.grace, func() {
			if p.doubts == doubt {
				l.wipe(p.unconfirmed, "its agent has not confirmed it")
				l.forget(p)
			}
		})
	}
	l.forget(p)
}

// forget drops a party of which there is nothing left to know.
func (l *lan) forget(p *party) {
	if p.sessions == 0 && len(p.unconfirmed) == 0 && l.parties[p.owner] == p {
		delete(l.parties, p.owner)
	}
}

// confirm keeps those of the names that are services of the party, and returns
// them.
func (l *lan) confirm(p *party, names []string) []string {
	kept := []string{}
	for _, name := range names {
		if l.owners[name] == p.owner {
			delete(p.unconfirmed, name)
			kept = append(kept, name)
		}
	}
	return kept
}

func (l *lan) servicesOf(o owner) map[string]struct{} {
	names := map[string]struct{}{}
	for name, other := range l.owners {
		if other == o {
			names[name] = struct{}{}
		}
	}
	return names
}

// wipe takes services down, in the order of their table.
func (l *lan) wipe(names map[string]struct{}, reason string) {
	var doomed []string
	for name := range l.services.All() {
		if _, ok := names[name]; ok {
			doomed = append(doomed, name)
		}
	}
	for _, name := range doomed {
		l.serviceDown(name, reason)
	}
}
