package lanmanager

import (
	"encoding/json"
	"net/netip"
	"strconv"

	"github.com/allexgo/machine-agent/lan/wire"
	"github.com/allexgo/machine-agent/lanmanager/page"
)

// visitor is who is at the other end of a connection, and what the sessions in
// it hold together.
type visitor struct {
	address  netip.Addr
	envelope Envelope
	proof    string // see door.proof

	queries int // continuous ones
	waiting int // subConnects to what is not there
}

// visitor returns that of a connection.
func (l *lan) visitor(c *wire.Channel) *visitor {
	v := l.visitors[c]
	if v == nil { // it has just ended
		v = &visitor{address: c.Peer(), envelope: WebSocket}
	}
	return v
}

// introduce is the LAN manager's door: the strategy ip with a name, the role
// user and, from an agent of this project, its id (design section 8).
func (l *lan) introduce(v *visitor, text json.RawMessage) (wire.Grant, error) {
	p, err := l.examine(v, text)
	if err != nil {
		if text := l.door.worth(err.Code + ": " + err.Message); text != "" {
			l.refused(v.address.String(), text)
		}
		return wire.Grant{}, err
	}
	l.log.Info("session begun", "peer", v.address, "owner", p.owner, "name", p.name)
	l.note(page.SessionBegun, p.name, p.owner.String()+" from "+v.address.String())
	return wire.Grant{Role: role, ModuleName: "allex_lanmanagerservice",
		User: &lanUser{lan: l, party: p, visitor: v}}, nil
}

func (l *lan) examine(v *visitor, text json.RawMessage) (*party, *wire.RejectedError) {
	const mostID = 255
	var strategies struct {
		IP fields `json:"ip"`
	}
	if json.Unmarshal(text, &strategies) != nil || strategies.IP == nil {
		return nil, rejected("STRATEGY_UNKNOWN", "the strategy that is known here is ip")
	}
	switch c := strategies.IP; {
	case !l.door.admits(v.address):
		return nil, rejected("ADDRESS_NOT_ADMITTED", v.address.String()+" is not among the subnets of this LAN manager")
	case !truthy(c["name"]):
		return nil, rejected("NAME_MISSING", "the credentials have no name")
	case len(c.text("id")) > mostID:
		return nil, rejected("ID_TOO_LONG", "an id has at most "+strconv.Itoa(mostID)+" bytes")
	case c.text("role") != role:
		return nil, rejected("ROLE_UNKNOWN", "the role that is known here is user")
	default:
		return l.arrive(v, c.text("id"), excerpt([]byte(c.textOr("name", string(c["name"])))))
	}
}

func rejected(code, message string) *wire.RejectedError {
	return &wire.RejectedError{Code: code, Message: message}
}

// truthy is what JavaScript takes for true.
func truthy(value json.RawMessage) bool {
	switch string(value) {
	case "", "null", "false", `""`, "0", "-0":
		return false
	}
	return true
}

// refused notes somebody who was not let in. It runs in the core.
func (l *lan) refused(peer, text string) {
	l.log.Warn("peer refused", "peer", peer, "reason", text)
	l.note(page.Refused, peer, text)
}
