package lanmanager

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/wire"
)

func needs(names ...string) map[string]string {
	texts := make([]string, len(names))
	for i, name := range names {
		texts[i] = fmt.Sprintf(`{"instancename":%q,"modulename":"m"}`, name)
	}
	return map[string]string{"needs": "[" + strings.Join(texts, ",") + "]"}
}

// agent is a peer with the sessions that an agent has.
type agent struct {
	*peer
	lan, needs, services string
	needsQuery           string
	servicesQuery        string
}

func (r *running) agent(id, from string) *agent {
	r.t.Helper()
	return newAgent(r.dial(from), id)
}

func newAgent(p *peer, id string) *agent {
	p.t.Helper()
	a := &agent{peer: p}
	a.lan = a.introduce(id)
	a.needs, a.services = a.sub(a.lan, "needs"), a.sub(a.lan, "services")
	a.needsQuery = a.begin(a.needs, "!", "query", map[string]any{"continuous": true})
	a.servicesQuery = a.begin(a.services, "!", "query", map[string]any{"continuous": true})
	return a
}

func (a *agent) on(name string) string { a.t.Helper(); return a.sub(a.needs, name) }

func TestBidsQueue(t *testing.T) {
	lan := start(t, Config{}, needs("A"))
	one, two, three := lan.agent("1", "127.0.0.1"), lan.agent("2", "127.0.0.2"), lan.agent("3", "127.0.0.3")

	first := one.on("A")
	ticket := one.bid(first)
	if again := one.bid(first); again != ticket {
		t.Errorf("the holder's second bid has ticket %s, want %s again", again, ticket)
	}
	second := two.on("A")
	waiting := two.begin(second, "!", "bid", map[string]string{})
	if got := two.value(second, "!", "bid", map[string]string{}); got != "BID_PENDING" {
		t.Errorf("second bid while the first waits: %s", got)
	}
	third := three.on("A")
	last := three.begin(third, "!", "bid", map[string]string{})
	if got := two.value(second, "!", "respond", ticket, map[string]int{"pid": 1}); got != "ALREADY_DESTROYED" {
		t.Errorf("response with another's ticket: %s", got)
	}

	one.call(first, "!", "die") // the session's end gives the need to the next
	two.ticket(waiting)
	two.conn.Close() // and so does the connection's
	if third := three.ticket(last); third == ticket {
		t.Errorf("two bids with ticket %s", third)
	}
}

func TestBidders(t *testing.T) {
	lan := start(t, Config{}, needs("A"))
	one, two := lan.agent("1", "127.0.0.1"), lan.agent("2", "127.0.0.2")
	first, second := one.on("A"), two.on("A")
	unopened := two.begin(two.needs, "!", "subConnect", "A", map[string]string{})
	reserved := two.subOf(unopened)
	ticket := one.bid(first)
	two.begin(second, "!", "bid", map[string]string{})
	if got := two.value(second, "!", "bid", map[string]string{}); got != "BID_PENDING" { // so the first is in the queue
		t.Errorf("second bid while the first waits: %s", got)
	}
	one.call(first, "!", "respond", ticket, map[string]any{"pid": 1, "httpport": listener(t)})

	ended := func(session string) func(wire.Unit) bool {
		return func(u wire.Unit) bool {
			return u.Kind == wire.OutOfBand && u.Session == session && u.Channel == wire.EndChannel
		}
	}
	one.find("end of the winner's session", ended(first))
	two.find("end of the loser's session", ended(second))
	two.send(`["late",["` + reserved + `",null]]`)
	two.find("f for the reserved session", func(u wire.Unit) bool {
		return u.Kind == wire.Forget && strings.Contains(string(u.Value), "late")
	})
	two.item(two.needsQuery, `"u"`, `"pid":1`)
	two.item(two.needsQuery, `"d"`, `"A"`)
	two.item(two.servicesQuery, `"c"`, `"A"`, `"127.0.0.1"`)
	if got := two.names(two.needs); len(got) != 0 {
		t.Errorf("open needs %v, want none", got)
	}

	// The need is not there: a subConnect waits until it is again.
	pending := two.begin(two.needs, "!", "subConnect", "A", map[string]string{})
	if got := one.value(one.lan, ".", "notifyServiceDown", "A", map[string]any{"reason": "exit code 3"}); got != "1" {
		t.Errorf("notifyServiceDown: %s", got)
	}
	two.bid(two.subOf(pending))
	two.item(two.servicesQuery, `"d"`, `"A"`)
	two.item(two.needsQuery, `"c"`, `"A"`, `"pid":null`, `"httpport":null`)
	if !strings.Contains(lan.log.String(), "exit code 3") {
		t.Errorf("the reason of the end is not in the log:\n%s", lan.log)
	}
}

func TestConstraints(t *testing.T) {
	files := map[string]string{"needs": `[
		{"instancename":"any"},
		{"instancename":"one","ipaddress":"127.0.0.1"},
		{"instancename":"net","ipaddress":"10.1.2.3/8"},
		{"instancename":"nonsense","ipaddress":"not an address"}]`}
	a := start(t, Config{}, files).agent("1", "127.0.0.1")
	const yes, no = "challenge", `{"rejected":true}`
	for _, c := range []struct{ need, offer, want string }{
		{"any", `{}`, yes},
		{"any", `{"ipaddress":"9.9.9.9"}`, yes},
		{"one", `{}`, yes}, // the peer's own address counts
		{"one", `{"ipaddress":"127.0.0.1"}`, yes},
		{"one", `{"ipaddress":"127.0.0.2"}`, no},
		{"one", `{"ipaddress":5}`, yes},
		{"net", `{}`, no},
		{"net", `{"ipaddress":"10.200.0.1"}`, yes}, // the mask counts, not the base
		{"net", `{"ipaddress":"11.0.0.1"}`, no},
		{"net", `{"ipaddress":"ten"}`, no},
		{"nonsense", `{}`, no},
	} {
		session := a.on(c.need)
		id := "x" + session
		a.send(`["` + id + `",["` + session + `",null],["!",["bid",[` + c.offer + `]]]]`)
		got := string(a.answer(id).Value)
		if strings.Contains(got, `"c":true`) {
			got = yes
		}
		if got != c.want {
			t.Errorf("offer %s for %s: %s, want %s", c.offer, c.need, got, c.want)
		}
		a.call(session, "!", "die")
	}
}

func TestPortCheck(t *testing.T) {
	lan := start(t, Config{}, needs("A"))
	a := lan.agent("1", "127.0.0.1")
	deaf, good := deafPort(t), listener(t)
	session := a.on("A")
	ticket := a.bid(session)
	for _, c := range []struct{ name, response, want string }{
		{"nothing listens", fmt.Sprintf(`{"pid":1,"tcpport":%d}`, deaf), "NO_PORTS_REACHABLE"},
		{"a port that is a string", fmt.Sprintf(`{"pid":1,"tcpport":"%d"}`, good), "NO_PORTS_REACHABLE"},
		{"no port", `{"pid":1}`, "NO_PORTS_REACHABLE"},
		{"no such port", `{"pid":1,"tcpport":70000,"httpport":-1,"wsport":1.5}`, "NO_PORTS_REACHABLE"},
		{"another address", fmt.Sprintf(`{"pid":1,"ipaddress":"127.9.9.9","tcpport":%d}`, good), "NO_PORTS_REACHABLE"},
		{"no pid", fmt.Sprintf(`{"tcpport":%d}`, good), "PID_MISSING"},
		{"a pid that is a string", fmt.Sprintf(`{"pid":"1","tcpport":%d}`, good), "PID_MISSING"},
		{"no response", `null`, "Bid response:  is not of a type(s) object"},
		{"the last one accepts", fmt.Sprintf(`{"pid":1,"tcpport":%d,"httpport":%d,"wsport":%d,"wsoptions":{"a":1}}`, deaf, deaf, good), `{"a":"` + ticket + `"}`},
	} {
		a.lastID++
		id := fmt.Sprintf("r%d", a.lastID)
		a.send(`["` + id + `",["` + session + `",null],["!",["respond",["` + ticket + `",` + c.response + `]]]]`)
		u := a.answer(id)
		if got := u.Code + string(u.Value); got != c.want {
			t.Errorf("%s: %s %s, want %s", c.name, got, u.Message, c.want)
		}
	}
	a.item(a.servicesQuery, `"c"`, `"A"`, fmt.Sprintf(`"tcpport":%d`, deaf), `"wsoptions":{"a":1}`, `"ipaddress":"127.0.0.1"`)
}

// A need that is removed while a response to it is being checked is gone, and
// the response counts for nothing when the need is there again.
func TestRemovedDuringPortCheck(t *testing.T) {
	lan := start(t, Config{}, needs("A"))
	a := lan.agent("1", "127.0.0.1")
	session := a.on("A")
	ticket := a.bid(session)
	call := func(id, session, target, method string, args ...any) string {
		u := wire.Unit{Kind: wire.Call, ID: id, Session: session, Target: target, Method: method}
		for _, arg := range args {
			u.Args = append(u.Args, marshal(arg))
		}
		return string(u.AppendJSON(nil))
	}
	a.send( // in one frame: one turn of the core
		call("respond", session, "!", "respond", ticket, map[string]int{"pid": 1, "tcpport": listener(t)}),
		call("remove", a.lan, ".", "removeNeed", "A"),
		call("add", a.lan, ".", "addNeed", map[string]string{"instancename": "A"}))
	if got := a.answer("respond"); got.Code != "ALREADY_DESTROYED" {
		t.Errorf("response: %s", got.AppendJSON(nil))
	}
	a.answer("remove")
	a.answer("add")
	a.bid(a.on("A"))
	if diff := cmp.Diff([]string{}, a.names(a.services)); diff != "" {
		t.Errorf("services: %s", diff)
	}
}
