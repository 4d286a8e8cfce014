package lanmanager

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func testDoor(s settings, l Limits, told *[]string) *door {
	return newDoor(s, l, newMetrics().refused, func(peer netip.Addr, text string) {
		*told = append(*told, peer.String()+" "+text)
	})
}

func TestDoor(t *testing.T) {
	s := settings{token: "t", subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/64")}}
	own, old, hub := Listener{Envelope: WebSocket}, Listener{Envelope: WebSocket, Original: true}, Listener{Envelope: SignalR}
	for _, c := range []struct {
		name   string
		l      Listener
		peer   string
		header string
		status int
		says   string
	}{
		{"this machine", old, "127.0.0.1:1", "", 200, ""},
		{"this machine by another of its addresses", old, "127.9.9.9:1", "", 200, ""},
		{"this machine, IPv6", old, "[::1]:1", "", 200, ""},
		{"in the subnet", old, "10.1.255.255:1", "", 200, ""},
		{"in the subnet, on a dual-stack listener", old, "[::ffff:10.1.2.3]:1", "", 200, ""},
		{"in the IPv6 subnet", old, "[fd00:1::77]:1", "", 200, ""},
		{"with a zone", old, "[fd00:1::77%eth0]:1", "", 200, ""},
		{"beside the subnet", old, "10.2.0.0:1", "", 403, "10.2.0.0 is not admitted; add it, or its subnet, to the file subnets"},
		{"beside the IPv6 subnet", old, "[fd00:1:0:1::77]:1", "", 403, "fd00:1:0:1::77"},
		{"beside the subnet, dual-stack", old, "[::ffff:10.2.0.0]:1", "", 403, "10.2.0.0"},
		{"no address", old, "@", "", 403, "subnets"},
		{"address before token", own, "10.2.0.0:1", "Bearer t", 403, "subnets"},
		{"token", own, "127.0.0.1:1", "Bearer t", 200, ""},
		{"no token", own, "127.0.0.1:1", "", 401, "tokenfile"},
		{"wrong token", own, "127.0.0.1:1", "Bearer T", 401, "tokenfile"},
		{"another scheme", own, "127.0.0.1:1", "Basic t", 401, "tokenfile"},
		{"SignalR asks for none", hub, "127.0.0.1:1", "", 200, ""},
	} {
		var told []string
		d := testDoor(s, Config{}.orDefault().Limits, &told)
		r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
		r.RemoteAddr = c.peer
		r.Header.Set("X-Forwarded-For", "127.0.0.1") // is believed by nobody
		if c.header != "" {
			r.Header.Set("Authorization", c.header)
		}
		let := d.lets(w, r, c.l)
		if let != (c.status == 200) || w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: let in %t, %d %s; want %d with %q", c.name, let, w.Code, w.Body, c.status, c.says)
		}
		if (len(told) == 1) == let {
			t.Errorf("%s: told %q", c.name, told)
		}
	}
}

func TestDoorIsFull(t *testing.T) {
	var told []string
	d := testDoor(settings{}, Limits{Connections: 3, PerAddress: 2}, &told)
	one, two := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	ask := func(peer netip.Addr) (int, string) {
		r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
		r.RemoteAddr = netip.AddrPortFrom(peer, 1).String()
		d.lets(w, r, Listener{Original: true})
		return w.Code, w.Body.String()
	}
	if !d.enter(one) || !d.enter(one) {
		t.Fatal("the first two do not get in")
	}
	if d.enter(one) {
		t.Error("the third connection of an address gets in")
	}
	if code, text := ask(one); code != 503 || !strings.Contains(text, "TOO_MANY_CONNECTIONS: 127.0.0.1 has its 2") {
		t.Errorf("too many of an address: %d %s", code, text)
	}
	if !d.enter(two) {
		t.Error("another address does not get in")
	}
	if code, text := ask(two); code != 503 || !strings.Contains(text, "TOO_MANY_CONNECTIONS: this LAN manager has its 3") {
		t.Errorf("too many in all: %d %s", code, text)
	}
	d.leave(one)
	if code, text := ask(two); code != 200 || !d.enter(two) {
		t.Errorf("room again: %d %s", code, text)
	}
	d.leave(one)
	d.leave(two)
	d.leave(two)
	if d.all != 0 || len(d.in) != 0 {
		t.Errorf("left behind: %d %v", d.all, d.in)
	}
}

// Who is refused comes again at once; that is told once a second.
func TestRefusalsAreToldSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		d := testDoor(settings{}, Limits{}, &told)
		peer := netip.MustParseAddr("10.0.0.1")
		for range 10 {
			d.tell(peer, "no")
		}
		time.Sleep(time.Second)
		d.tell(peer, "no")
		if len(told) != 2 || told[0] != "10.0.0.1 no" || !strings.Contains(told[1], "9 others") {
			t.Errorf("told %q", told)
		}
	})
}
