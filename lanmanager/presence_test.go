package lanmanager

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/allexgo/machine-agent/lan/wire"
)

// downs are the items that took services off the table, of those that were seen.
func (p *agent) downs() (names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.units {
		if u.ID == p.servicesQuery && u.Kind == wire.Notify && strings.HasPrefix(string(u.Value), `["d"`) {
			names = append(names, string(u.Value))
		}
	}
	return names
}

// Services of an agent that comes back within the grace never leave the table,
// whether its connection was lost, or silent, or is doubled, and whichever
// envelope it comes in.
func TestServicesOfOneWhoComesBackNeverGo(t *testing.T) {
	serving(t, func(x *timed, watcher, one *agent) {
		for _, part := range []func(*agent){
			func(a *agent) { a.conn.Close() },
			func(a *agent) { a.call(a.lan, "!", "die") },
			func(*agent) { time.Sleep(14 * time.Second) }, // silent, after the 6 s below: it is dropped
			func(*agent) {}, // it comes again while its old connection is there
		} {
			part(one)
			time.Sleep(5*time.Second - time.Millisecond)
			one = x.agent("one", "127.0.0.1")
			synctest.Wait()
			if got := one.keep(one.lan, "A", "B"); got != `{"kept":["A","B"]}` {
				t.Errorf("keepServices: %s", got)
			}
			time.Sleep(6 * time.Second)
		}
		synctest.Wait()
		if downs := watcher.downs(); downs != nil {
			t.Errorf("services went: %q", downs)
		}
		one.conn.Close()
		time.Sleep(25 * time.Second) // its other connection has to be missed too
		synctest.Wait()
		if downs := watcher.downs(); len(downs) != 2 {
			t.Errorf("services of one who is gone: %q went", downs)
		}
	})
}

// What an original can expect: each new session of its address wipes its
// services, the end of the last one too, and nobody else's are touched.
func TestServicesOfAnOriginal(t *testing.T) {
	port := listener(t)
	inTime(t, `[{"instancename":"A"},{"instancename":"B"},{"instancename":"C"}]`, func(x *timed) {
		watcher := x.agent("watcher", "127.0.0.9")
		keepAlive(watcher.peer)
		x.agent("agent", "127.0.0.1").serveAll(port, "C")
		first := x.agent("", "127.0.0.1")
		first.serveAll(port, "A", "B")
		x.dial("127.0.0.2").introduce("") // another original
		synctest.Wait()
		if downs := watcher.downs(); downs != nil {
			t.Errorf("another's session takes %q down", downs)
		}
		second := x.agent("", "127.0.0.1")
		synctest.Wait()
		if downs := watcher.downs(); len(downs) != 2 || !strings.Contains(downs[0], `"A"`) || !strings.Contains(downs[1], `"B"`) {
			t.Errorf("its second session takes %q down", downs)
		}
		second.serveAll(port, "A")
		first.conn.Close()
		synctest.Wait()
		if downs := watcher.downs(); len(downs) != 2 {
			t.Errorf("the end of the first of two sessions takes %q down", downs[2:])
		}
		second.conn.Close()
		synctest.Wait()
		if downs := watcher.downs(); len(downs) != 3 || !strings.Contains(downs[2], `"A"`) {
			t.Errorf("the end of the last session: %q went", downs)
		}
	})
}

// A reason and an exit status are kept for people.
func TestWhyServicesEnd(t *testing.T) {
	for detail, want := range map[string]string{
		``:                    "",
		`{}`:                  "{}",
		`{"reason":"exited"}`: "exited",
		`{"reason":"exited","status":{"code":3}}`:       `exited, status {"code":3}`,
		`{"status":{"signal":9}}`:                       `status {"signal":9}`,
		`{"reason":"r","status":null}`:                  "r",
		`"text"`:                                        `"text"`,
		`{"reason":5}`:                                  `{"reason":5}`,
		`{"reason":"` + strings.Repeat("x", 300) + `"}`: strings.Repeat("x", 200) + "...",
	} {
		if got := why([]byte(detail)); got != want {
			t.Errorf("%s: %q, want %q", detail, got, want)
		}
	}
}
