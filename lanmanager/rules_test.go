package lanmanager

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/wire"
)

// rule is a line of PROTOCOL: what is sent, and what comes for its id. $S is a
// session on the LAN manager, $N on the needs, $V on the services, $T on the
// NATs, $M on the modules, $A on the need A, which nobody has bid for, and $B on
// the need B, held with the ticket $K.
type rule struct {
	section, name string
	send          string
	want          string // the answer: a value, or a code; "f": the unit itself, octet by octet; "": none
}

var rules = []rule{
	{"2", "three elements introduce and call", `["q",[null,{"ip":{"name":"x","role":"user"}}],[".",["notifyServiceDown",["x"]]]]`, `0`},
	{"2", "no arguments", `["q",["$S",null],[".",["notifyModuleEngaged",null]]]`, `""`},
	{"2", "one argument that is no array", `["q",["$S",null],[".",["notifyServiceDown","x"]]]`, `0`},
	{"2", "too many arguments", `["q",["$S",null],[".",["notifyServiceDown",["x",{},1,2,3]]]]`, `0`},
	{"2", "unknown session", `["q",["nosuch",null],[".",["notifyServiceDown",["x"]]]]`, "f"},
	{"2", "unknown session, odd text", `["q",["nosuch",null],[".",["m",[1.50,{"a":"\u00e9\/"}]]]]`, "f"},
	{"2", "no session, no credentials", `["q",[null,null]]`, "f"},
	{"2", "not a unit", `{"a":1}`, "f"},
	{"2", "nothing", `[]`, "f"},
	{"2", "a number", `5`, "f"},
	{"2", "wrong type", `["q",["$S",null],[".",["notifyServiceDown",[5]]]]`, "Service instancename:  is not of a type(s) string"},
	{"2", "unknown method", `["q",["$S",null],[".",["nosuch",[1]]]]`, "METHOD_DOES_NOT_EXIST"},
	{"2", "target is a subservice", `["q",["$S",null],["needs",["spawn",[{"instancename":"X"}]]]]`, "METHOD_DOES_NOT_EXIST"},
	{"2", "target is a need", `["q",["$N",null],["A",["bid",[{}]]]]`, "METHOD_DOES_NOT_EXIST"},

	{"3", "introduce", `["q",["mine",{"ip":{"name":"x","role":"user","more":1}}]]`, `{"session":"mine","role":"user","modulename":"allex_lanmanagerservice"}`},
	{"3", "no name", `["q",[null,{"ip":{"role":"user"}}]]`, "NAME_MISSING"},
	{"3", "another role", `["q",[null,{"ip":{"name":"x","role":"service"}}]]`, "ROLE_UNKNOWN"},
	{"3", "no role", `["q",[null,{"ip":{"name":"x"}}]]`, "ROLE_UNKNOWN"},
	{"3", "another strategy", `["q",[null,{"allpass":{"name":"x","role":"user"}}]]`, "STRATEGY_UNKNOWN"},

	{"4", "another role for a table", `["q",["$S",null],["!",["subConnect",["needs",{"role":"service"}]]]]`, "ROLE_UNKNOWN"},
	{"4", "a subservice that never comes", `["q",["$S",null],["!",["subConnect",["nosuch",{"role":"user"}]]]]`, ""},
	{"4", "a need that is not there", `["q",["$N",null],["!",["subConnect",["nosuch",{}]]]]`, ""},
	{"4", "confirmReservation", `["q",["$A",null],["!",["confirmReservation",[]]]]`, `"ok"`},
	{"4", "introduce again with the session", `["q",["$A",null]]`, `{"session":"$A","role":"user","modulename":"allex_serviceneedservice"}`},

	{"6", "query once", `["q",["$T",null],["!",["query",[{}]]]]`, `true`},
	{"6", "query that lasts", `["q",["$V",null],["!",["query",[{"continuous":true}]]]]`, ""},
	{"6", "read", `["q",["$N",null],[".",["read",[{}]]]]`, `null`},
	{"6", "closeQuery of none", `["q",["$N",null],["!",["closeQuery",["nosuch"]]]]`, `false`},
	{"6", "create", `["q",["$V",null],[".",["create",[{"instancename":"hack"}]]]]`, "METHOD_NOT_EXECUTABLE"},
	{"6", "update", `["q",["$M",null],[".",["update",[null,{"modulename":"m"},{}]]]]`, "METHOD_NOT_EXECUTABLE"},
	{"6", "delete", `["q",["$N",null],[".",["delete",[{"op":"eq","field":"instancename","value":"A"}]]]]`, "METHOD_NOT_EXECUTABLE"},

	{"7", "notifyServiceDown of none", `["q",["$S",null],[".",["notifyServiceDown",["A",{"reason":"r"}]]]]`, `0`},
	{"7", "notifyModuleEngaged", `["q",["$S",null],[".",["notifyModuleEngaged",["m"]]]]`, `"m"`},
	{"7", "addNeed without a name", `["q",["$S",null],[".",["addNeed",[{"modulename":"m"}]]]]`, "NEED_NOT_DEFINED"},
	{"7", "addNeed", `["q",["$S",null],[".",["addNeed",[{"instancename":"C","modulename":"m","more":1}]]]]`, `true`},
	{"7", "addNeed of an open one", `["q",["$S",null],[".",["addNeed",[{"instancename":"A","modulename":"other"}]]]]`, `true`},
	{"7", "removeNeed", `["q",["$S",null],[".",["removeNeed",["C"]]]]`, `true`},
	{"7", "removeNeed of none", `["q",["$S",null],[".",["removeNeed",["nosuch"]]]]`, `true`},

	{"8", "bid of no object", `["q",["$A",null],["!",["bid",["127.0.0.1"]]]]`, "Bid offering:  is not of a type(s) object"},
	{"8", "bid from a wrong address", `["q",["$A",null],["!",["bid",[{"ipaddress":"127.0.0.1"}]]]]`, `{"rejected":true}`},
	{"8", "respond without a bid", `["q",["$A",null],["!",["respond",["x",{"ipaddress":"127.0.0.1","pid":1}]]]]`, "ALREADY_DESTROYED"},
	{"8", "bid again", `["q",["$B",null],["!",["bid",[{}]]]]`, `{"bid":"$K","c":true}`},
	{"8", "respond with another ticket", `["q",["$B",null],["!",["respond",["wrong",{"pid":1,"tcpport":1}]]]]`, "ALREADY_DESTROYED"},
	{"8", "respond without a pid", `["q",["$B",null],["!",["respond",["$K",{"tcpport":1}]]]]`, "PID_MISSING"},
	{"8", "respond without ports", `["q",["$B",null],["!",["respond",["$K",{"pid":1}]]]]`, "NO_PORTS_REACHABLE"},
	{"8", "respond with a port that is a string", `["q",["$B",null],["!",["respond",["$K",{"pid":1,"tcpport":"$P"}]]]]`, "NO_PORTS_REACHABLE"},
	{"8", "respond again after an error", `["q",["$B",null],["!",["respond",["$K",{"pid":1,"wsport":$P}]]]]`, `{"a":"$K"}`},
	{"4", "die of a session that was ended", `["q",["$B",null],["!",["die",[]]]]`, "f"},
	{"4", "die", `["q",["$A",null],["!",["die",[]]]]`, `"dead"`},
	{"4", "a session that died", `["q",["$A",null],["!",["bid",[{}]]]]`, "f"},
	{"9", "notifyServiceDown by another party", `["q",["$S",null],[".",["notifyServiceDown",["B"]]]]`, `1`},
}

func TestRules(t *testing.T) {
	for _, e := range []Envelope{WebSocket, SignalR} {
		t.Run(string(e), func(t *testing.T) {
			lan := start(t, Config{Listeners: both()}, map[string]string{
				"needs": `[{"instancename":"A","modulename":"m","ipaddress":"10.0.0.0/8"},{"instancename":"B","modulename":"m"}]`,
				"nat":   `[{"iaddress":"10.0.0.1","iport":1,"eaddress":"1.2.3.4","eport":2}]`})
			p := lan.dial("127.0.0.1")
			if e == SignalR {
				p = lan.dialSignalR("127.0.0.1")
			}
			s := p.introduce("")
			n := p.sub(s, "needs")
			b := p.sub(n, "B")
			names := strings.NewReplacer("$S", s, "$N", n, "$V", p.sub(s, "services"), "$T", p.sub(s, "nat"),
				"$M", p.sub(s, "engaged_modules"), "$A", p.sub(n, "A"), "$B", b, "$K", p.bid(b), "$P", fmt.Sprint(listener(t)))
			for i, r := range rules {
				// Introductions without an id would wipe what is served: they come from elsewhere.
				from := p
				if strings.Contains(r.send, `"ip":`) || strings.Contains(r.send, `"allpass"`) {
					from = lan.dial("127.0.0.9")
				}
				id := fmt.Sprintf("rule%d", i)
				unit := strings.Replace(names.Replace(r.send), `"q`, `"`+id, 1)
				if got := from.reply(id, unit); got != names.Replace(r.want) && (r.want != "f" || got != "f"+unit) {
					t.Errorf("section %s, %s: %s\ngot  %s\nwant %s", r.section, r.name, unit, got, names.Replace(r.want))
				}
			}
		})
	}
}

// reply sends a unit and tells what came for its id up to the answer to what was
// sent behind it.
func (p *peer) reply(id, unit string) (reply string) {
	p.t.Helper()
	p.forgetUnits()
	p.send(unit)
	if strings.Contains(unit, "respond") { // it is answered when the ports were tried
		p.find("answer to "+unit, func(u wire.Unit) bool { return isAnswer(id)(u) || u.Kind == wire.Forget })
	}
	if strings.Contains(unit, `Need"`) { // and this when the file is written
		p.answer(id)
	}
	p.send(`["?",` + id[len("rule"):] + `]`)
	p.find("pong", func(u wire.Unit) bool { return u.Kind == wire.Pong && string(u.Value) == id[len("rule"):] })
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.units {
		switch {
		case u.Kind == wire.Forget:
			return "f" + string(u.Value)
		case u.ID == id && u.Kind == wire.Resolve:
			return string(u.Value)
		case u.ID == id && u.Kind == wire.Reject:
			return u.Code
		}
	}
	return ""
}

// A subConnect to a need that is not there is answered when that comes, whoever
// asked first being first.
func TestSubConnectWaits(t *testing.T) {
	lan := start(t, Config{}, needs("A"))
	one, two := lan.agent("one", "127.0.0.1"), lan.agent("two", "127.0.0.2")
	one.serveAll(listener(t), "A")
	two.item(two.needsQuery, `"d"`, `"A"`)
	first := one.begin(one.needs, "!", "subConnect", "A", map[string]string{})
	one.value(one.lan, ".", "notifyModuleEngaged", "m") // so it waits
	second := two.begin(two.needs, "!", "subConnect", "A", map[string]string{})
	ended := two.sub(two.lan, "needs")
	two.begin(ended, "!", "subConnect", "A", map[string]string{})
	two.call(ended, "!", "die") // it waits no more
	one.value(one.lan, ".", "notifyServiceDown", "A")
	one.bid(one.subOf(first))
	bid := two.begin(two.subOf(second), "!", "bid", map[string]string{})
	one.conn.Close()
	two.ticket(bid)
	if err := lan.m.crew.ask(t.Context(), func() {
		if len(lan.m.lan.waiting) != 0 {
			t.Errorf("%d names are waited for", len(lan.m.lan.waiting))
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// What a need wants of ports and address is there again when its service, which
// had others, is gone.
func TestFixedPortsAndAddressReturn(t *testing.T) {
	lan := start(t, Config{}, map[string]string{"needs": `[{"instancename":"A","ipaddress":"127.0.0.0/8","tcpport":15777}]`})
	a := lan.agent("one", "127.0.0.1")
	a.item(a.needsQuery, `"r1"`, `"ipaddress":"127.0.0.0/8"`, `"tcpport":15777`)
	n := a.on("A")
	port := listener(t)
	a.call(n, "!", "respond", a.bid(n), map[string]any{"pid": 7, "httpport": port})
	a.item(a.servicesQuery, `"c"`, `"ipaddress":"127.0.0.1"`, `"tcpport":null`, fmt.Sprintf(`"httpport":%d`, port))
	a.value(a.lan, ".", "notifyServiceDown", "A")
	a.item(a.needsQuery, `"c"`, `"ipaddress":"127.0.0.0/8"`, `"tcpport":15777`, `"httpport":null`, `"pid":null`)
}

// The order of what a winner is told is that of the original: the answer, then
// the end of the session; the need goes before the service comes.
func TestOrderOfAnAcceptance(t *testing.T) {
	lan := start(t, Config{}, needs("A"))
	a := lan.agent("one", "127.0.0.1")
	n := a.on("A")
	ticket := a.bid(n)
	a.forgetUnits()
	id := a.begin(n, "!", "respond", ticket, map[string]any{"pid": 7, "tcpport": listener(t)})
	a.item(a.servicesQuery, `"c"`)
	var got []string
	a.mu.Lock()
	for _, u := range a.units {
		switch {
		case u.ID == id:
			got = append(got, "answer")
		case u.Kind == wire.OutOfBand && u.Session == n:
			got = append(got, "end")
		case u.ID == a.needsQuery:
			got = append(got, "need "+string(u.Value[2:3]))
		case u.ID == a.servicesQuery:
			got = append(got, "service "+string(u.Value[2:3]))
		}
	}
	a.mu.Unlock()
	if diff := cmp.Diff([]string{"answer", "need u", "need d", "end", "service c"}, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}
