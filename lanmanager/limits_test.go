package lanmanager

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/allexgo/machine-agent/lan/wire"
)

// Each limit of a connection is refused with a code that says which one it is,
// holds for all sessions of the connection together, and for no other
// connection; what is given back can be had again.
func TestLimitsOfAConnection(t *testing.T) {
	lan := start(t, Config{Limits: Limits{Queries: 2, Waiting: 2, Wire: wire.Limits{Sessions: 5}}}, needs("A"))
	p, other := lan.dial("127.0.0.1"), lan.dial("127.0.0.1")
	s := p.introduce("one")
	n, v := p.sub(s, "needs"), p.sub(s, "services")
	lasting := map[string]bool{"continuous": true}

	query := p.begin(n, "!", "query", lasting)
	p.begin(v, "!", "query", lasting)
	if got := p.value(n, "!", "query", lasting); got != "TOO_MANY_QUERIES" {
		t.Errorf("third continuous query: %s", got)
	}
	if got := p.value(n, "!", "query", map[string]any{}); got != "true" {
		t.Errorf("a query that is over at once: %s", got)
	}
	u := p.find("query id", func(u wire.Unit) bool { return u.ID == query && strings.HasPrefix(string(u.Value), `["i"`) })
	_, id, _ := strings.Cut(strings.TrimSuffix(string(u.Value), `"]`), `,"`)
	if got := p.value(n, "!", "closeQuery", id); got != "true" {
		t.Errorf("closeQuery: %s", got)
	}
	p.begin(n, "!", "query", lasting)
	if got := p.value(n, "!", "query", lasting); got != "TOO_MANY_QUERIES" {
		t.Errorf("third continuous query, again: %s", got)
	}

	p.begin(n, "!", "subConnect", "absent", map[string]string{})
	p.begin(s, "!", "subConnect", "absent", map[string]string{})
	if got := p.value(n, "!", "subConnect", "absent", map[string]string{}); got != "TOO_MANY_WAITING" {
		t.Errorf("third subConnect that waits: %s", got)
	}
	p.sub(n, "A") // is there
	p.sub(n, "A")
	if got := p.value(n, "!", "subConnect", "A", map[string]string{}); got != "TOO_MANY_SESSIONS" {
		t.Errorf("sixth session: %s", got)
	}

	o := other.introduce("two")
	if on := other.sub(o, "needs"); other.value(on, "!", "closeQuery", "none") != "false" {
		t.Error("another connection is held to the limits of this one")
	}
	other.begin(other.sub(o, "services"), "!", "query", lasting)

	p.call(n, "!", "die") // and with it one query and one that waits
	n = p.sub(s, "needs")
	p.begin(n, "!", "query", lasting)
	p.begin(n, "!", "subConnect", "absent", map[string]string{})
	if got := p.value(n, "!", "subConnect", "absent", map[string]string{}); got != "TOO_MANY_WAITING" {
		t.Errorf("subConnect after another one gave its place back: %s", got)
	}
}

// Calls that wait for their answer are bounded too.
func TestUnitsInFlight(t *testing.T) {
	lan := start(t, Config{Limits: Limits{Wire: wire.Limits{InFlight: 3}}}, nil)
	p := lan.dial("127.0.0.1")
	n := p.sub(p.introduce("one"), "needs")
	for i := range 3 {
		p.begin(n, "!", "subConnect", fmt.Sprint("absent", i), map[string]string{})
	}
	if got := p.value(n, "!", "subConnect", "absent3", map[string]string{}); got != "TOO_MANY_CALLS" {
		t.Errorf("fourth call in flight: %s", got)
	}
}

func TestTooManyConnections(t *testing.T) {
	lan := start(t, Config{Listeners: both(), Limits: Limits{Connections: 3, PerAddress: 2}}, nil)
	first := lan.dial("127.0.0.1")
	first.introduce("one")
	lan.dialSignalR("127.0.0.1").introduce("two")
	for url, dial := range map[string]func(context.Context, string, wire.DialOptions) (wire.Conn, error){
		lan.url: wire.Dial, lan.signalR: wire.DialSignalR,
	} {
		conn, err := dial(t.Context(), url, wire.DialOptions{})
		if err == nil {
			conn.Close()
			t.Fatal("the third connection of an address is let in")
		}
		if !strings.Contains(err.Error(), "503") {
			t.Errorf("the third connection of an address: %v", err)
		}
	}
	lan.dial("127.0.0.2").introduce("three")
	first.conn.Close()
	first.until("a place to be free", func() bool { return lan.m.door.full(netip.MustParseAddr("127.0.0.1")) == "" })
	lan.dial("127.0.0.1").introduce("four")
	if log := lan.log.String(); !strings.Contains(log, "TOO_MANY_CONNECTIONS") {
		t.Errorf("nothing of it in the log:\n%s", log)
	}
}
