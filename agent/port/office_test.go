package port

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/allexgo/machine-agent/lan/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var all = []Protocol{TCP, HTTP, WS}

// block finds n neighbouring ports that nobody has, below the ports that the
// system gives away by itself.
func block(t testing.TB, n int) int {
	t.Helper()
	const low, high = 18000, 32000
	for try := range 100 {
		first := low + (os.Getpid()*16+try*n)%(high-low-n)
		free := 0
		for free < n && bindable(first+free) {
			free++
		}
		if free == n {
			return first
		}
	}
	t.Fatalf("no %d free ports in a row between %d and %d", n, low, high)
	return 0
}

// bindable tells whether a program that sets no SO_REUSEADDR could have a port now.
func bindable(number int) bool {
	l, err := listenAlone(number)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// stranger listens on a port until the test ends.
func stranger(t testing.TB, number int) {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", number))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// office makes an office with ranges of size ports each, and tells the first.
func office(t testing.TB, size int) (o *Office, first int) {
	t.Helper()
	first = block(t, 3*size)
	o = NewOffice(Range{Start: first, Size: size}, Range{Start: first + size, Size: size}, Range{Start: first + 2*size, Size: size}, 0)
	t.Cleanup(o.Close)
	return o, first
}

func mustLease(t *testing.T, o *Office, r Request) table.Ports {
	t.Helper()
	if r.Mode == 0 {
		r.Mode = Reserved
	}
	ports, err := o.Lease(r)
	if err != nil {
		t.Fatalf("Lease(%+v): %v", r, err)
	}
	return ports
}

func TestFirstFree(t *testing.T) {
	o, p := office(t, 4)
	stranger(t, p+5) // the second HTTP port
	steps := []struct {
		instance  string
		protocols []Protocol
		want      table.Ports
	}{
		{"a", all, table.Ports{TCP: p, HTTP: p + 4, WS: p + 8}},
		{"b", all, table.Ports{TCP: p + 1, HTTP: p + 6, WS: p + 9}},
		{"c", []Protocol{WS}, table.Ports{WS: p + 10}},
		{"none", nil, table.Ports{}},
	}
	for _, s := range steps {
		if got := mustLease(t, o, Request{Instance: s.instance, Protocols: s.protocols}); got != s.want {
			t.Errorf("%s got %+v, want %+v", s.instance, got, s.want)
		}
	}
	o.Release("a")
	if got, want := mustLease(t, o, Request{Instance: "d", Protocols: []Protocol{TCP}}), (table.Ports{TCP: p}); got != want {
		t.Errorf("after a release: %+v, want %+v", got, want)
	}
}

func TestFixedAndPreferred(t *testing.T) {
	o, p := office(t, 4)
	outside := block(t, 16) + 15 // in none of the ranges
	tests := []struct {
		name string
		r    Request
		want table.Ports
	}{
		{"fixed in the range", Request{Fixed: table.Ports{TCP: p + 2}}, table.Ports{TCP: p + 2, HTTP: p + 4, WS: p + 8}},
		{"fixed outside of it", Request{Fixed: table.Ports{HTTP: outside}}, table.Ports{TCP: p, HTTP: outside, WS: p + 8}},
		{"fixed where another protocol would choose", Request{Fixed: table.Ports{WS: p}}, table.Ports{TCP: p + 1, HTTP: p + 4, WS: p}},
		{"preferred", Request{Preferred: table.Ports{TCP: p + 3, HTTP: p + 5}}, table.Ports{TCP: p + 3, HTTP: p + 5, WS: p + 8}},
		{"preferred outside of the range", Request{Preferred: table.Ports{TCP: outside, HTTP: -1, WS: 70000}}, table.Ports{TCP: p, HTTP: p + 4, WS: p + 8}},
		{"fixed before preferred", Request{Fixed: table.Ports{TCP: p + 1}, Preferred: table.Ports{TCP: p + 2}}, table.Ports{TCP: p + 1, HTTP: p + 4, WS: p + 8}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.r.Instance, tt.r.Protocols = "a", all
			defer o.Release("a")
			if got := mustLease(t, o, tt.r); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
	t.Run("preferred but taken", func(t *testing.T) {
		mustLease(t, o, Request{Instance: "holder", Protocols: []Protocol{TCP}, Fixed: table.Ports{TCP: p + 1}})
		stranger(t, p+5)
		got := mustLease(t, o, Request{Instance: "a", Protocols: all, Preferred: table.Ports{TCP: p + 1, HTTP: p + 5}})
		if want := (table.Ports{TCP: p, HTTP: p + 4, WS: p + 8}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestTaken(t *testing.T) {
	o, p := office(t, 3)
	mustLease(t, o, Request{Instance: "holder", Protocols: []Protocol{HTTP}, Fixed: table.Ports{HTTP: p}})
	stranger(t, p+1)
	tests := []struct {
		fixed   table.Ports
		want    TakenError
		message string
	}{
		{table.Ports{TCP: p}, TakenError{Protocol: TCP, Port: p, Holder: "holder"},
			fmt.Sprintf(`tcp port %d is leased to instance "holder"; stop that one, or ask for another port`, p)},
		{table.Ports{WS: p + 1}, TakenError{Protocol: WS, Port: p + 1},
			fmt.Sprintf(`ws port %d is held by another program of this machine; end that one, or ask for another port`, p+1)},
		{table.Ports{TCP: p + 2, HTTP: p + 2}, TakenError{Protocol: HTTP, Port: p + 2, Holder: "a", Twice: true},
			fmt.Sprintf("http port %d is wanted for another protocol, too; give each of them its own", p+2)},
	}
	for _, tt := range tests {
		_, leased := o.Lease(Request{Instance: "a", Protocols: all, Mode: Reserved, Fixed: tt.fixed})
		for name, err := range map[string]error{"Lease": leased, "Free": o.Free(tt.fixed, "a")} {
			var taken *TakenError
			if !errors.As(err, &taken) {
				t.Fatalf("%s of %+v: %v, want a TakenError", name, tt.fixed, err)
			}
			if diff := cmp.Diff(tt.want, *taken); diff != "" {
				t.Errorf("%s of %+v: %s", name, tt.fixed, diff)
			}
			if err.Error() != tt.message {
				t.Errorf("%s of %+v: message %q, want %q", name, tt.fixed, err, tt.message)
			}
		}
		if has, ok := o.Of("a"); ok {
			t.Errorf("a refused request left %+v", has)
		}
	}
	if err := o.Free(table.Ports{TCP: p, WS: p + 2}, "holder"); err != nil {
		t.Errorf("its own port and a free one are not free: %v", err)
	}
	if !bindable(p + 2) {
		t.Error("Free keeps the port that it tried")
	}
}

func TestNotAPort(t *testing.T) {
	o, _ := office(t, 1)
	for _, number := range []int{-1, 65536, 70000} {
		ports := table.Ports{HTTP: number}
		_, leased := o.Lease(Request{Instance: "a", Protocols: all, Mode: Reserved, Fixed: ports})
		for name, err := range map[string]error{
			"Lease": leased, "Free": o.Free(ports, "a"), "Adopt": o.Adopt("a", ports), "Outside": o.Outside("a", ports),
		} {
			if !errors.Is(err, ErrNotAPort) {
				t.Errorf("%s of port %d: %v", name, number, err)
			}
		}
	}
	if got := o.All(); len(got) != 0 {
		t.Errorf("left behind: %+v", got)
	}
}

func TestExhausted(t *testing.T) {
	o, p := office(t, 8)
	for i := range 7 {
		mustLease(t, o, Request{Instance: fmt.Sprintf("i%d", i), Protocols: []Protocol{WS}})
	}
	stranger(t, p+3*8-1)
	ports, err := o.Lease(Request{Instance: "late", Protocols: all, Mode: Reserved})
	var e *ExhaustedError
	if !errors.As(err, &e) {
		t.Fatalf("got %+v, %v, want an ExhaustedError", ports, err)
	}
	want := &ExhaustedError{Range: Range{WS, p + 16, 8}, Leased: 7, Strangers: 1, Holders: []string{"i0", "i1", "i2", "i3", "i4"}}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Error(diff)
	}
	message := fmt.Sprintf(`no port is free in the range ws %d-%d: 7 of 8 leased to "i0", "i1", "i2", "i3", "i4" and others, 1 held by other programs;`+
		` stop what is not needed, or raise portrangesize or move portrangestart.ws in the agent's configuration`, p+16, p+23)
	if e.Error() != message {
		t.Errorf("message\n%s, want\n%s", e, message)
	}
	if has, ok := o.Of("late"); ok {
		t.Errorf("the refused one has %+v", has)
	}
	if !bindable(p) || !bindable(p+8) {
		t.Error("the refused one's TCP and HTTP ports are still held")
	}
}

func TestLeaseTwice(t *testing.T) {
	o, _ := office(t, 2)
	first := mustLease(t, o, Request{Instance: "a", Protocols: all})
	if got, err := o.Lease(Request{Instance: "a", Protocols: all, Mode: Reserved}); err == nil {
		t.Errorf("a second lease gave %+v", got)
	}
	if got, _ := o.Of("a"); got != first {
		t.Errorf("the refused one changed %+v to %+v", first, got)
	}
}

func TestAdoptAndOutside(t *testing.T) {
	o, p := office(t, 4)
	if err := o.Adopt("old", table.Ports{TCP: p, HTTP: p + 4}); err != nil {
		t.Fatal(err)
	}
	mustLease(t, o, Request{Instance: "child", Protocols: all})
	if err := o.Outside("child", table.Ports{TCP: p + 1, HTTP: p + 6}); err != nil { // moved HTTP, has no WS
		t.Fatal(err)
	}
	if err := o.Outside("guest", table.Ports{WS: p + 7}); err != nil {
		t.Fatal(err)
	}
	o.Listening("child")
	o.Listening("old")
	want := []Lease{
		{TCP, p, "old", StateAdopted},
		{TCP, p + 1, "child", StateListening},
		{HTTP, p + 4, "old", StateAdopted},
		{HTTP, p + 6, "child", StateOutside},
		{WS, p + 7, "guest", StateOutside},
	}
	check := func() {
		t.Helper()
		if diff := cmp.Diff(want, o.All()); diff != "" {
			t.Error(diff)
		}
	}
	check()
	if !bindable(p+5) || !bindable(p+8) {
		t.Error("ports that the child does not use are still held")
	}
	for name, err := range map[string]error{
		"another's port":               o.Outside("guest", table.Ports{TCP: p + 2, WS: p}),
		"another's port adopted":       o.Adopt("guest", table.Ports{WS: p + 1}),
		"one number for two protocols": o.Outside("guest", table.Ports{TCP: p + 2, WS: p + 2}),
	} {
		var taken *TakenError
		if !errors.As(err, &taken) {
			t.Errorf("%s: %v, want a TakenError", name, err)
		}
	}
	check() // refused: nothing changed
	if err := o.Outside("guest", table.Ports{TCP: p + 7}); err != nil {
		t.Errorf("the same number for another protocol: %v", err)
	}
	if err := o.Outside("guest", table.Ports{}); err != nil {
		t.Error(err)
	}
	if has, ok := o.Of("guest"); ok {
		t.Errorf("has %+v after saying that it has none", has)
	}
}

func TestClose(t *testing.T) {
	o, p := office(t, 1)
	mustLease(t, o, Request{Instance: "a", Protocols: all})
	o.Close()
	o.Close()
	if !bindable(p) || len(o.All()) != 0 {
		t.Error("Close left a lease")
	}
}

func TestNames(t *testing.T) {
	for _, p := range all {
		if got, err := ParseProtocol(p.String()); got != p || err != nil {
			t.Errorf("%v became %v, %v", p, got, err)
		}
	}
	for _, m := range []Mode{Reserved, Released, Passed} {
		if got, err := ParseMode(m.String()); got != m || err != nil {
			t.Errorf("%v became %v, %v", m, got, err)
		}
	}
	_, err := ParseProtocol("udp")
	if want := `unknown protocol "udp": allowed are tcp, http, ws`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if _, err := ParseMode(""); err == nil {
		t.Error("an empty mode was taken")
	}
	if got := Protocol(0).String() + " " + State(9).String(); got != "unknown(0) unknown(9)" {
		t.Errorf("names of what is not: %q", got)
	}
}

func BenchmarkLeaseRelease(b *testing.B) {
	const instances = 1000
	o := NewOffice(Range{Start: 20000, Size: 2000}, Range{Start: 22000, Size: 2000}, Range{Start: 24000, Size: 2000}, 0)
	defer o.Close()
	for i := range instances {
		if _, err := o.Lease(Request{Instance: fmt.Sprint(i), Protocols: all, Mode: Reserved}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := o.Lease(Request{Instance: "x", Protocols: all, Mode: Reserved}); err != nil {
			b.Fatal(err)
		}
		o.Release("x")
	}
}
