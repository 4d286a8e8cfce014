package link

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/allexgo/machine-agent/lan/wire"
)

// Of several places all is told, and what to do once.
func TestNowhere(t *testing.T) {
	for want, tried := range map[string][]error{
		"a: refused":                          {errors.New("a: refused"), nil},
		"a: refused, and b: refused":          {errors.New("a: refused"), errors.New("b: refused")},
		"a: odd, and b: refused; mend it":     {errors.New("a: odd; mend it"), errors.New("b: refused")},
		"a: odd, and b: odd; mend it":         {errors.New("a: odd; mend it"), errors.New("b: odd; mend it")},
		"a: odd, and b: old; mend it, or buy": {errors.New("a: odd; mend it"), errors.New("b: old; buy")},
	} {
		if got := Nowhere(tried).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A name that nobody knows is not a LAN manager that has to be started.
func TestTryOfAName(t *testing.T) {
	err := New(Config{}).Try(t.Context(), "no-such-machine.invalid:23552")
	if err == nil || !strings.Contains(err.Error(), `; set "lanmanageraddress" to a name that this machine finds`) {
		t.Error(err)
	}
}

// The places that are tried in turn are all told, whichever was the last.
func TestAllPlacesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner()
		l := New(config(o, "lan:23552", "lan:23451"))
		l.dial = func(context.Context, string) (wire.Conn, error) { return nil, errors.New("refused") }
		run(t, l)
		for n := range 3 {
			got := expect[Down](t, o).Err.Error()
			if !strings.Contains(got, "lan:23552: refused") || n > 0 && !strings.Contains(got, "lan:23451: refused") {
				t.Errorf("%d: %q", n, got)
			}
		}
	})
}

// Whether a LAN manager can be reached is found out without a word to it.
func TestTry(t *testing.T) {
	said := make(chan string, 1)
	at := listen(t, func(f frames) {
		defer close(said)
		if frame, err := f.read(); err == nil {
			said <- frame
		}
	})
	if err := New(Config{}).Try(t.Context(), at); err != nil {
		t.Error(err)
	}
	if frame, ok := <-said; ok {
		t.Errorf("it said %q", frame)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := New(Config{}).Try(t.Context(), l.Addr().String()); err == nil || !strings.HasPrefix(err.Error(), "no LAN manager at "+l.Addr().String()+": ") {
		t.Errorf("nobody there: %v", err)
	}
}
