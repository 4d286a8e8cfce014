package link

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/table"
)

func nats(t *testing.T, l *Link) []table.NAT {
	t.Helper()
	all, err := l.NAT(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b table.NAT) int { return strings.Compare(a.IAddress, b.IAddress) })
	return all
}

// The table of translated addresses is read when it is asked for first, and
// followed from then on.
func TestNAT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manager{nats: []string{`{"iaddress":"10.0.0.1","iport":80,"eaddress":"1.2.3.4","eport":8080}`}}
		l, o := piped(t, m)
		if _, err := l.NAT(t.Context()); !errors.Is(err, ErrNoSession) {
			t.Errorf("without a session: %v", err)
		}
		expect[Up](t, o).Attend()
		if slices.Contains(m.asked(), "lan subConnect nat") {
			t.Error("it was read although nobody asked")
		}
		first := table.NAT{IAddress: "10.0.0.1", IPort: table.PortRange{From: 80, To: 80}, EAddress: "1.2.3.4", EPort: 8080}
		if diff := cmp.Diff([]table.NAT{first}, nats(t, l)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		c := m.conn()
		c.send(c.item("nat", `["c",{"iaddress":"10.0.0.2","iport":[1000,2000],"eaddress":"1.2.3.5","eport":0}]`))
		synctest.Wait()
		second := table.NAT{IAddress: "10.0.0.2", IPort: table.PortRange{From: 1000, To: 2000}, EAddress: "1.2.3.5"}
		if diff := cmp.Diff([]table.NAT{first, second}, nats(t, l)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if n := strings.Count(strings.Join(m.asked(), "\n"), "lan subConnect nat"); n != 1 {
			t.Errorf("it was subscribed to %d times", n)
		}
	})
}

// A LAN manager that has no such table says so, once a session.
func TestNATRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manager{on: func(c *conn, step string, r request) bool {
			if step == "lan subConnect nat" {
				c.send(reject(r, "NO_SUCH_SUBSERVICE"))
				return true
			}
			return false
		}}
		l, o := piped(t, m)
		expect[Up](t, o).Attend()
		for range 2 {
			if _, err := l.NAT(t.Context()); err == nil || !strings.Contains(err.Error(), "NO_SUCH_SUBSERVICE") {
				t.Errorf("error %v", err)
			}
		}
		gone, stop := context.WithCancel(t.Context())
		stop()
		if _, err := l.NAT(gone); err == nil {
			t.Error("no error for a caller who is gone")
		}
	})
}
