package port

import (
	"fmt"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/lan/table"
)

// accepts tells whether a connect to the port is not refused.
func accepts(number int) bool {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", number))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// A passed port accepts from the moment of choice, and goes on to the next process
// with the very socket.
func TestPassed(t *testing.T) {
	o, p := office(t, 2)
	r := Request{Instance: "a", Protocols: []Protocol{WS, TCP}, Mode: Passed}
	ports := mustLease(t, o, r)
	if want := (table.Ports{TCP: p, WS: p + 4}); ports != want {
		t.Fatalf("leased %+v, want %+v", ports, want)
	}
	sockets := o.Sockets("a")
	if len(sockets) != 2 || sockets[0].Protocol != TCP || sockets[1].Protocol != WS {
		t.Fatalf("sockets %+v, want one for tcp and one for ws, in that order", sockets)
	}
	for _, s := range sockets {
		if flags, err := unix.FcntlInt(uintptr(s.FD), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("flags %#x, %v: every child would inherit the socket", flags, err)
		}
	}
	for range 2 { // what is done twice must be the same
		o.Keep("a")
		for _, l := range o.All() {
			if l.State != StateKept {
				t.Errorf("kept: %+v", l)
			}
		}
		if !accepts(p) || !accepts(p+4) {
			t.Error("a kept port refuses")
		}
	}
	inode := o.Inode(p)
	if again := mustLease(t, o, r); again != ports || o.Inode(p) != inode || inode == 0 {
		t.Errorf("the next process has %+v and socket %d, want %+v and %d", again, o.Inode(p), ports, inode)
	}
	if diff := cmp.Diff(sockets, o.Sockets("a")); diff != "" {
		t.Error(diff)
	}
	if _, err := o.Lease(r); err == nil {
		t.Error("a second lease of one that lives")
	}
}

// What the next process does not ask for is not kept for it.
func TestPassedAskedForAnew(t *testing.T) {
	for name, r := range map[string]Request{
		"another mode":     {Protocols: []Protocol{TCP}, Mode: Reserved},
		"another protocol": {Protocols: []Protocol{HTTP}, Mode: Passed},
		"another port":     {Protocols: []Protocol{TCP}, Mode: Passed, Fixed: table.Ports{TCP: 1}}, // the second of the range
	} {
		t.Run(name, func(t *testing.T) {
			o, p := office(t, 2)
			mustLease(t, o, Request{Instance: "a", Protocols: []Protocol{TCP}, Mode: Passed})
			if r.Fixed.TCP != 0 {
				r.Fixed.TCP = p + 1
			}
			r.Instance = "a"
			o.Keep("a")
			mustLease(t, o, r)
			if accepts(p) {
				t.Error("the port that was kept still accepts")
			}
		})
	}
}

func TestPassedEnds(t *testing.T) {
	for name, end := range map[string]func(*Office){
		"Release": func(o *Office) { o.Release("a") },
		"LetGo":   func(o *Office) { o.LetGo("a") },
		"Close":   (*Office).Close,
		"LetGo before Keep": func(o *Office) {
			o.LetGo("a")
			o.Keep("a")
			if has, ok := o.Of("a"); ok {
				t.Errorf("%+v is kept without a socket", has)
			}
		},
	} {
		o, p := office(t, 1)
		mustLease(t, o, Request{Instance: "a", Protocols: []Protocol{TCP}, Mode: Passed})
		if !o.Passes("a") || !accepts(p) {
			t.Errorf("%s: it did not accept before", name)
		}
		end(o)
		if o.Passes("a") || accepts(p) {
			t.Errorf("%s: it still accepts", name)
		}
	}
}

// A port that somebody has bound, so that it could be reserved, but listens on is
// not chosen.
func TestPassedBesideThief(t *testing.T) {
	o, p := office(t, 2)
	stranger(t, p)
	if got := mustLease(t, o, Request{Instance: "a", Protocols: []Protocol{TCP}, Mode: Passed}); got.TCP != p+1 {
		t.Errorf("leased %+v, want %d", got, p+1)
	}
	// Who has bound it first, with SO_REUSEADDR, can not listen any more.
	o.Release("a")
	thief, err := hold(p + 1)
	if err != nil {
		t.Fatal(err)
	}
	defer thief.close()
	if got := mustLease(t, o, Request{Instance: "a", Protocols: []Protocol{TCP}, Mode: Passed}); got.TCP != p+1 {
		t.Errorf("leased %+v, want %d", got, p+1)
	}
	if err := thief.listen(); !inUse(err) {
		t.Errorf("the thief's listen: %v", err)
	}
}

func TestRegain(t *testing.T) {
	o, p := office(t, 1)
	if err := o.Adopt("a", table.Ports{TCP: p}); err != nil {
		t.Fatal(err)
	}
	s, err := open(p, Passed)
	if err != nil {
		t.Fatal(err)
	}
	o.Regain("a", p, int(s))
	o.Listening("a")
	o.Keep("a")
	if diff := cmp.Diff([]Lease{{TCP, p, "a", StateKept}}, o.All()); diff != "" || !accepts(p) {
		t.Errorf("it accepts: %v; %s", accepts(p), diff)
	}
	stray, err := unix.Dup(int(s))
	if err != nil {
		t.Fatal(err)
	}
	o.Regain("b", p, stray) // not its port
	if err := unix.Close(stray); err == nil {
		t.Error("a socket that nobody leased is open")
	}
}
