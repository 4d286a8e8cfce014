package lanmanager

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/lan/wire"
)

// soon waits until the names on a table are as wanted.
func (p *peer) soon(tableSession string, want ...string) {
	p.t.Helper()
	p.until(fmt.Sprintf("the names on the table to be %v", want), func() bool {
		return slices.Equal(want, p.names(tableSession))
	})
}

func (p *peer) until(what string, is func() bool) {
	p.t.Helper()
	for late := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(late) {
			p.t.Fatalf("waited in vain for %s; what came:\n%s", what, p)
		}
	}
}

func (a *agent) serveAll(port int, names ...string) {
	a.t.Helper()
	for _, name := range names {
		a.serve(a.needs, name, port)
	}
}

func (p *peer) keep(session string, names ...string) string {
	p.t.Helper()
	return p.value(session, ".", "keepServices", names)
}

func TestSessionsWithoutID(t *testing.T) {
	lan := start(t, Config{}, needs("A", "B"))
	port := listener(t)
	watcher := lan.agent("watcher", "127.0.0.9")
	one, two := lan.agent("", "127.0.0.1"), lan.agent("", "127.0.0.2")
	one.serveAll(port, "A")
	two.serveAll(listenerOn(t, "127.0.0.2"), "B")

	second := lan.agent("", "127.0.0.1")
	watcher.soon(watcher.services, "B") // a new session wipes its address, and no other
	second.serveAll(port, "A")
	one.conn.Close()
	one.gone()
	if got := second.names(second.services); len(got) != 2 { // the last one is not gone
		t.Errorf("services after the loss of one of two sessions: %v", got)
	}
	second.call(second.lan, "!", "die")
	watcher.soon(watcher.services, "B") // die of the last one
	two.conn.Close()
	watcher.soon(watcher.services) // loss of the last one
	watcher.soon(watcher.needs, "A", "B")
}

// A service is not accepted from somebody whose end nobody would notice.
func TestNoServiceWithoutASession(t *testing.T) {
	lan := start(t, Config{}, needs("A"))
	for _, id := range []string{"", "1"} {
		a := lan.agent(id, "127.0.0.1")
		session := a.on("A")
		ticket := a.bid(session)
		a.call(a.lan, "!", "die")
		got := a.value(session, "!", "respond", ticket, map[string]int{"pid": 1, "tcpport": listener(t)})
		if got != "ALREADY_DESTROYED" {
			t.Errorf("response without a session: %s", got)
		}
		a.soon(a.needs, "A")
		a.conn.Close()
	}
}

func TestIDBelongsToAnAddress(t *testing.T) {
	lan := start(t, Config{}, nil)
	first := lan.dial("127.0.0.1")
	first.introduce("one")
	second := lan.dial("127.0.0.2")
	u := second.tryIntroduce("one")
	if u.Code != "ID_IN_USE" || !strings.Contains(u.Message, "127.0.0.1") {
		t.Errorf("same id from another address: %s", u.AppendJSON(nil))
	}
	second.find(`{"err":{}}`, func(u wire.Unit) bool { return u.Kind == wire.AuthFailure })
	lan.dial("127.0.0.1").introduce("one") // from the same it may
	second.introduce("two")                // and the connection lives

	third := lan.dial("127.0.0.3")
	third.introduce("three")
	third.conn.Close()
	third.gone()
	for late := time.Now().Add(patience); ; { // once it is gone, the id may move
		if u = second.tryIntroduce("three"); u.Kind == wire.Resolve {
			break
		}
		if time.Now().After(late) {
			t.Fatalf("id whose sessions are gone, from another address: %s", u.AppendJSON(nil))
		}
	}
}

func TestNotifyServiceDown(t *testing.T) {
	lan := start(t, Config{}, needs("A", "B"))
	port := listener(t)
	one, two, other := lan.agent("one", "127.0.0.1"), lan.agent("two", "127.0.0.2"), lan.agent("", "127.0.0.3")
	one.serveAll(port, "A", "B")
	if got := two.value(two.lan, ".", "notifyServiceDown", "A"); got != "0" {
		t.Errorf("another's service: %s", got)
	}
	if got := one.value(one.lan, ".", "notifyServiceDown", "A"); got != "1" {
		t.Errorf("an own service: %s", got)
	}
	if got := one.value(one.lan, ".", "notifyServiceDown", "A"); got != "0" {
		t.Errorf("an own service, again: %s", got)
	}
	if got := other.value(other.lan, ".", "notifyServiceDown", "B"); got != "1" {
		t.Errorf("from a session without an id: %s", got)
	}
	if got := other.keep(other.lan, "A"); got != "ID_MISSING" {
		t.Errorf("keepServices without an id: %s", got)
	}
	one.soon(one.needs, "A", "B")
}

func TestRefusals(t *testing.T) {
	lan := start(t, Config{}, nil)
	for _, c := range []struct{ credentials, code string }{
		{`{"ip":{"role":"user"}}`, "NAME_MISSING"},
		{`{"ip":{"role":"user","name":""}}`, "NAME_MISSING"},
		{`{"ip":{"role":"user","name":0}}`, "NAME_MISSING"},
		{`{"ip":{"name":"x","role":"service"}}`, "ROLE_UNKNOWN"},
		{`{"ip":{"name":"x"}}`, "ROLE_UNKNOWN"},
		{`{"ip":{"name":"x","role":"user","id":"` + strings.Repeat("i", 256) + `"}}`, "ID_TOO_LONG"},
		{`{"ip":5}`, "STRATEGY_UNKNOWN"},
		{`{"samemachineprocess":{"pid":1}}`, "STRATEGY_UNKNOWN"},
		{`7`, "STRATEGY_UNKNOWN"},
	} {
		p := lan.dial("127.0.0.1")
		p.send(`["q",[null,` + c.credentials + `]]`)
		if got := p.answer("q"); got.Code != c.code {
			t.Errorf("%s: %s, want %s", c.credentials, got.AppendJSON(nil), c.code)
		}
		p.find(`{"err":{}}`, func(u wire.Unit) bool { return u.Kind == wire.AuthFailure })
	}
	p := lan.dial("127.0.0.1")
	p.send(`["q",[null,{"ip":{"name":true,"role":"user","id":5}}]]`) // odd, but as good as the original wants it
	sessionIn(t, p.answer("q").Value)
}

func TestOtherTables(t *testing.T) {
	lan := start(t, Config{}, map[string]string{
		"nat": `[{"iaddress":"192.168.1.1","iport":[1,9],"eaddress":"1.2.3.4","eport":0},{"no":"address"}]`})
	p := lan.dial("127.0.0.1")
	session := p.introduce("one")
	nat := p.sub(session, "nat")
	q := p.begin(nat, "!", "query", map[string]any{})
	p.item(q, `"192.168.1.1"`, `[1,9]`)
	if got := p.answer(q); string(got.Value) != "true" {
		t.Errorf("end of the query: %s", got.AppendJSON(nil))
	}
	modules := p.sub(session, "engaged_modules")
	for range 2 {
		if got := p.value(session, ".", "notifyModuleEngaged", "m"); got != `"m"` {
			t.Errorf("notifyModuleEngaged: %s", got)
		}
	}
	p.value(session, ".", "notifyModuleEngaged") // nothing is no module
	p.soon(modules, "allexcore", "allex_dataservice", "m")
	for _, c := range []struct {
		session, target, method string
		args                    []any
		want                    string
	}{
		{nat, "!", "subConnect", []any{"x"}, "METHOD_DOES_NOT_EXIST"},
		{nat, ".", "create", []any{map[string]string{}}, "METHOD_NOT_EXECUTABLE"},
		{nat, "!", "query", []any{5}, "QUERY_INVALID"},
		{nat, ".", "read", []any{5}, "QUERY_INVALID"},
		{nat, "!", "closeQuery", []any{"no such"}, "false"},
		{session, "!", "subConnect", []any{"nat", map[string]string{"role": "service"}}, "ROLE_UNKNOWN"},
		{session, ".", "addNeed", []any{map[string]string{"modulename": "m"}}, "NEED_NOT_DEFINED"},
		{session, ".", "addNeed", []any{map[string]int{"instancename": 5}}, "NEED_NOT_DEFINED"},
		{session, ".", "addNeed", nil, "NEED_NOT_DEFINED"},
		{session, ".", "removeNeed", []any{5}, "Need instancename:  is not of a type(s) string"},
	} {
		if got := p.value(c.session, c.target, c.method, c.args...); got != c.want {
			t.Errorf("%s%s %v: %s, want %s", c.target, c.method, c.args, got, c.want)
		}
	}
}

func TestQueryEndsWithItsSession(t *testing.T) {
	lan := start(t, Config{}, nil)
	a := lan.agent("one", "127.0.0.1")
	var item []string
	u := a.find("query id", func(u wire.Unit) bool { return u.ID == a.needsQuery })
	if err := json.Unmarshal(u.Value, &item); err != nil {
		t.Fatal(err)
	}
	if got := a.value(a.needs, "!", "closeQuery", item[1]); got != "true" {
		t.Errorf("closeQuery: %s", got)
	}
	a.answer(a.needsQuery)
	a.call(a.services, "!", "die")
	a.forgetUnits()
	a.value(a.lan, ".", "addNeed", map[string]string{"instancename": "A"})
	a.serve(a.needs, "A", listener(t))
	for _, u := range a.units {
		if u.Kind == wire.Notify {
			t.Errorf("an item after the end: %s", u.AppendJSON(nil))
		}
	}
}
