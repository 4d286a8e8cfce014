package lanmanager

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// role is the only one there is for peers.
const role = "user"

// lanUser is the user of a session on the LAN manager itself (PROTOCOL section
// 7 has its business methods; keepServices is ours).
type lanUser struct {
	lan     *lan
	party   *party
	visitor *visitor
	waiting int // subConnects to what is not there
}

// Opened implements wire.User.
func (u *lanUser) Opened(s *wire.ServerSession) {
	for _, name := range []string{"services", "needs", "nat", "engaged_modules"} {
		s.State("have"+name, true)
	}
	s.State("name", u.party.address.String())
}

// Closed implements wire.User.
func (u *lanUser) Closed() {
	u.visitor.waiting -= u.waiting
	u.lan.leave(u.party, u.visitor)
}

// Call implements wire.User.
func (u *lanUser) Call(r *wire.Request) {
	switch r.Method {
	case "!subConnect":
		u.subConnect(r)
	case ".notifyServiceDown":
		u.notifyServiceDown(r)
	case ".notifyServiceFails":
		u.notifyServiceFails(r)
	case ".keepServices":
		u.keepServices(r)
	case ".notifyModuleEngaged":
		if name, ok := r.String(0, "Module name"); ok {
			u.lan.engage(name)
			r.Resolve(name)
		}
	case ".addNeed":
		u.addNeed(r)
	case ".removeNeed":
		if name, ok := r.String(0, "Need instancename"); ok {
			u.lan.removeNeed(name, saved(r))
		}
	default:
		r.Unknown()
	}
}

// subConnect leads to the tables. A name that there is not stays without an
// answer, as in the original: it might come, and a master that is refused asks
// again every second.
func (u *lanUser) subConnect(r *wire.Request) {
	name, as, ok := identity(r, u.party.address.String())
	if !ok {
		return
	}
	l := u.lan
	grant := wire.Grant{Role: role}
	switch name {
	case "needs":
		grant.ModuleName, grant.User = "allex_remoteserviceneedingservice", newNeedsUser(l, u.visitor, u.party, as)
	case "services":
		grant.ModuleName, grant.User = "allex_availablelanservicesservice", newTableUser(l, u.visitor, l.services, table.Services, as)
	case "nat":
		grant.ModuleName, grant.User = "allex_natservice", newTableUser(l, u.visitor, l.nats, table.NATs, as)
	case "engaged_modules":
		grant.ModuleName, grant.User = "allex_engagedmodulesservice", newTableUser(l, u.visitor, l.modules, table.EngagedModules, as)
	default:
		if u.visitor.waits(r, l.limits.Waiting) {
			u.waiting++
		}
		return
	}
	r.Reserve(grant)
}

// identity reads the arguments of a subConnect: the name of what is wanted, and
// as whom; otherwise is who asks if it does not say.
func identity(r *wire.Request, otherwise string) (name, as string, ok bool) {
	if name, ok = r.String(0, "Subservice name"); !ok {
		return "", "", false
	}
	if len(name) > maxName { // it will never come
		r.Reject("NAME_TOO_LONG", "a name has at most "+strconv.Itoa(maxName)+" bytes")
		return "", "", false
	}
	who, ok := r.Object(1, "Identity")
	if !ok {
		return "", "", false
	}
	if who := fields(who); who.textOr("role", role) != role {
		r.Reject("ROLE_UNKNOWN", "the role that is known here is user")
		return "", "", false
	}
	return name, fields(who).textOr("name", otherwise), true
}

// notifyServiceDown takes a service off the table. An agent can do so with its
// own only: what it says of another's is a mistake. Who has no id is believed,
// as in the original.
func (u *lanUser) notifyServiceDown(r *wire.Request) {
	name, ok := r.String(0, "Service instancename")
	if !ok {
		return
	}
	if s := u.lan.serving[name]; u.party.owner.id != "" && (s == nil || s.party != u.party) {
		r.Resolve(0)
		return
	}
	reason := "reported by " + u.party.name
	if said := why(r.Arg(1)); said != "" {
		reason = said + " (" + reason + ")"
	}
	r.Resolve(u.lan.serviceDown(name, u.lan.metrics.reported, reason))
}

// notifyServiceFails takes note why the machine of an agent can not serve an open
// need (design section 8). The answer tells whether there is such a need.
func (u *lanUser) notifyServiceFails(r *wire.Request) {
	if u.party.owner.id == "" {
		r.Reject("ID_MISSING", "this session was introduced without an id")
		return
	}
	if name, ok := r.String(0, "Service instancename"); ok {
		r.Resolve(u.lan.serviceFails(name, u.party.name, why(r.Arg(1))))
	}
}

// why is what an agent of this project says behind the name, for people: a
// reason, and maybe the exit status of the process.
func why(detail json.RawMessage) string {
	var said struct {
		Reason string          `json:"reason"`
		Status json.RawMessage `json:"status"`
	}
	if json.Unmarshal(detail, &said) != nil || said.Reason == "" && said.Status == nil {
		return excerpt(detail)
	}
	text := excerpt([]byte(said.Reason))
	if len(said.Status) > 0 && string(said.Status) != "null" {
		text = strings.TrimPrefix(text+", status "+excerpt(said.Status), ", ")
	}
	return text
}

// keepServices confirms services of this session's agent (design section 8).
func (u *lanUser) keepServices(r *wire.Request) {
	if u.party.owner.id == "" {
		r.Reject("ID_MISSING", "this session was introduced without an id")
		return
	}
	if names, ok := r.Strings(0, "Service instancenames"); ok {
		r.Resolve(map[string][]string{"kept": u.lan.confirm(u.party, names)})
	}
}

func (u *lanUser) addNeed(r *wire.Request) {
	need, ok := r.Object(0, "Need descriptor")
	switch {
	case !ok:
		return
	case fields(need).text("instancename") == "":
		r.Reject("NEED_NOT_DEFINED", "")
		return
	}
	if err := u.lan.addNeed(need, saved(r)); err != nil {
		r.Reject("NEED_NOT_DEFINED", err.Error())
	}
}

// saved answers addNeed and removeNeed once the file is written.
func saved(r *wire.Request) func(error) {
	return func(err error) {
		if err != nil {
			r.Reject("NEEDS_NOT_SAVED", "done, but only until the LAN manager ends: "+err.Error())
			return
		}
		r.Resolve(true)
	}
}

// excerpt is the beginning of what a peer said, for the log.
func excerpt(text []byte) string {
	const most = 200
	if len(text) > most {
		return string(text[:most]) + "..."
	}
	return string(text)
}
