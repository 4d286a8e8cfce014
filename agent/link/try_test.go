package link

import (
	"net"
	"strings"
	"testing"
)

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
