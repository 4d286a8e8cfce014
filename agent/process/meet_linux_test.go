package process

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
)

// The one socket that a connection would meet is among those that cover the
// address, and there is none where a connection is refused.
func TestMet(t *testing.T) {
	for _, c := range []struct {
		network, listen string
		meets, misses   []string
	}{
		{"tcp4", "127.0.0.1:0", []string{"127.0.0.1"}, []string{"127.0.0.2", "::1"}},
		{"tcp4", "0.0.0.0:0", []string{"127.0.0.1", "127.0.0.2"}, []string{"::1"}},
		{"tcp", "[::]:0", []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"}, nil},
		{"tcp6", "[::1]:0", []string{"::1"}, []string{"127.0.0.1"}},
		{"tcp6", "[::]:0", []string{"::1"}, nil},
	} {
		l, err := net.Listen(c.network, c.listen)
		if err != nil {
			t.Logf("%s %s: %v", c.network, c.listen, err) // a machine without IPv6
			continue
		}
		port := l.Addr().(*net.TCPAddr).Port
		for i, host := range append(c.meets, c.misses...) {
			found, err := metByNetlink(netip.MustParseAddr(host), port)
			if want := i < len(c.meets); err != nil || (len(found) == 1) != want || want && (int(found[0].Address.Port()) != port || found[0].Inode == 0) {
				t.Errorf("%s %s: at %s is met %v, %v", c.network, c.listen, host, found, err)
			}
		}
		l.Close()
	}
}

func BenchmarkMet(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	host, port := netip.MustParseAddr("127.0.0.1"), l.Addr().(*net.TCPAddr).Port
	for name, find := range map[string]func() ([]Listener, error){
		"met":  func() ([]Listener, error) { return Met(host, port) },
		"list": func() ([]Listener, error) { return Listeners(port) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if found, err := find(); err != nil || len(found) != 1 {
					b.Fatal(fmt.Sprint(found, err))
				}
			}
		})
	}
}
