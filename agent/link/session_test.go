package link

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/allexgo/machine-agent/lan/table"
)

// linked starts a Link against a manager at a loopback port.
func linked(t *testing.T, m *manager) (*Link, *owner) {
	t.Helper()
	m.t = t
	o := newOwner()
	l := New(config(o, listen(t, m.serve)))
	run(t, l)
	return l, o
}

// piped starts a Link against a manager inside a bubble.
func piped(t *testing.T, m *manager) (*Link, *owner) {
	t.Helper()
	m.t = t
	o := newOwner()
	l := New(config(o, "lan:23552"))
	l.dial = pipe(m.serve)
	run(t, l)
	return l, o
}

// config is that of a Link whose events o takes.
func config(o *owner, addresses ...string) Config {
	return Config{Addresses: addresses, Name: "machine", ID: "agent-1", Emit: o.emit, Logger: hclog.NewNullLogger()}
}

// answer is a response with the process that the manager accepts.
func answer(name string) Answer {
	return Answer{Need: table.Need{InstanceName: name, ModuleName: "probe"}, IPAddress: "127.0.0.1", Ports: table.Ports{TCP: 15000}, PID: 4711}
}

// TestWipe: a new session of an address takes its services off the table, and
// their needs come back (PROTOCOL section 9.2). Others live on. What the real
// LAN manager sends besides is nothing.
func TestWipe(t *testing.T) {
	m := &manager{services: []string{service("A", "127.0.0.1"), service("Far", "10.0.0.9"), service("B", "127.0.0.1")}}
	_, o := linked(t, m)
	o.wantNext(t, "up seen as 127.0.0.1, needs [], services [A Far B]")
	c := m.conn()
	byAddress := `{"op":"eq","field":"ipaddress","value":"127.0.0.1"}`
	c.send(
		c.item("services", `["u",`+key("Unknown")+`,{"tcpport":1}]`),
		c.item("services", `["d",`+byAddress+`]`),
		c.item("services", `["d",`+byAddress+`]`),
		c.item("services", `["d",`+key("A")+`]`),
		c.item("services", `["u",null,{"upsert":true}]`),
		c.item("services", `["odd"]`),
		c.item("needs", `["c",`+need("A", "")+`]`),
		c.item("needs", `["c",`+need("B", "10.0.0.0/8")+`]`),
	)
	o.wantNext(t, "service A gone", "service B gone", "need A open", "need B open")
}

// TestPhantom: a record without an address is no service, whenever it comes; one
// that loses its address is gone.
func TestPhantom(t *testing.T) {
	nobody := func(name string) string {
		return strings.Replace(service(name, ""), `"ipaddress":""`, `"ipaddress":null`, 1)
	}
	m := &manager{services: []string{nobody("Old"), service("A", "127.0.0.1")}}
	_, o := linked(t, m)
	o.wantNext(t, "up seen as 127.0.0.1, needs [], services [A]")
	c := m.conn()
	c.send(c.item("services", `["c",`+nobody("New")+`]`), c.item("services", `["u",`+key("New")+`,{"tcpport":1}]`),
		c.item("services", `["d",`+key("New")+`]`), c.item("services", `["d",`+key("Old")+`]`),
		c.item("services", `["u",`+key("A")+`,{"ipaddress":null}]`), c.item("services", `["d",`+key("A")+`]`),
		c.item("services", `["c",`+service("B", "127.0.0.1")+`]`))
	o.wantNext(t, "service A gone", "service B at 127.0.0.1 {15000 0 0}")
}

// TestSecondSession: what the table says after a reconnection is all that
// counts, whether the loss of the first session took services off it or not
// (PROTOCOL section 9.3).
func TestSecondSession(t *testing.T) {
	for name, second := range map[string]struct {
		needs, services []string
		want            string
	}{
		"wiped":       {[]string{need("A", "")}, nil, "up seen as 127.0.0.1, needs [A], services []"},
		"not wiped":   {nil, []string{service("A", "127.0.0.1")}, "up seen as 127.0.0.1, needs [], services [A]"},
		"taken over":  {nil, []string{service("A", "127.0.0.2")}, "up seen as 127.0.0.1, needs [], services [A]"},
		"all is gone": {nil, nil, "up seen as 127.0.0.1, needs [], services []"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &manager{services: []string{service("A", "127.0.0.1"), service("B", "127.0.0.1")}}
			_, o := linked(t, m)
			o.wantNext(t, "up seen as 127.0.0.1, needs [], services [A B]")
			m.needs, m.services = second.needs, second.services
			m.conn().close()
			expect[Down](t, o)
			o.wantNext(t, second.want)
		})
	}
}

// TestSecondReading: a reading anew within a session tells the differences.
func TestSecondReading(t *testing.T) {
	m := &manager{needs: []string{need("A", ""), need("B", "")}}
	_, o := linked(t, m)
	o.wantNext(t, "up seen as 127.0.0.1, needs [A B], services []")
	c := m.conn()
	c.send(c.item("needs", `["rb","x"]`), c.item("needs", `["r1","x",`+need("B", "")+`]`),
		c.item("needs", `["r1","x",`+need("C", "")+`]`), c.item("needs", `["re","x"]`))
	o.wantNext(t, "need C open", "need A gone")
}

// TestTakenNeeds: a need that has a winner or is closing is not open, however
// it comes.
func TestTakenNeeds(t *testing.T) {
	taken := strings.Replace(need("Taken", ""), `"pid":null`, `"pid":7`, 1)
	closing := strings.Replace(need("Closing", ""), `"closed":null`, `"closed":true`, 1)
	m := &manager{needs: []string{taken, need("Open", ""), closing}}
	_, o := linked(t, m)
	o.wantNext(t, "up seen as 127.0.0.1, needs [Open], services []")
	c := m.conn()
	c.send(c.item("needs", `["c",`+strings.Replace(taken, "Taken", "New", 1)+`]`),
		c.item("needs", `["u",`+key("Open")+`,{"timeout":5}]`), // changes nothing that counts
		c.item("needs", `["u",`+key("Open")+`,{"closed":true}]`),
		c.item("needs", `["u",`+key("Open")+`,{"pid":3}]`),
		c.item("needs", `["d",null]`))
	o.wantNext(t, "need New taken", "need Open taken", "need Taken gone", "need Open gone", "need Closing gone", "need New gone")
}

// TestSessionEnds: whatever way a session of the three ends, a new one begins.
func TestSessionEnds(t *testing.T) {
	bySession := func(end func(c *conn, session string) string, of string) func(*manager, *Link) {
		return func(m *manager, _ *Link) { c := m.conn(); c.send(end(c, c.session(of))) }
	}
	end := func(_ *conn, session string) string { return ended(session) }
	forgotten := func(_ *conn, session string) string { return fmt.Sprintf(`["f",["x",[%q,null]]]`, session) }
	byQuery := func(format, of string) func(*manager, *Link) {
		return func(m *manager, _ *Link) {
			c := m.conn()
			c.send(fmt.Sprintf(format, c.queries[of]))
		}
	}
	for name, test := range map[string]struct {
		act  func(*manager, *Link)
		want string
	}{
		"root ended":         {bySession(end, "lan"), "the LAN manager ended the session"},
		"needs ended":        {bySession(end, "needs"), "the LAN manager ended the session"},
		"services ended":     {bySession(end, "services"), "the LAN manager ended the session"},
		"root forgotten":     {bySession(forgotten, "lan"), "does not know the session any more"},
		"needs forgotten":    {bySession(forgotten, "needs"), "does not know the session any more"},
		"services forgotten": {bySession(forgotten, "services"), "does not know the session any more"},
		"query resolved":     {byQuery(`["r",%q,true]`, "needs"), "the LAN manager ended a query"},
		"query rejected":     {byQuery(`["e",%q,{"code":"NO","message":""}]`, "services"), "rejected by the LAN manager: NO"},
		"connection lost":    {func(m *manager, _ *Link) { m.conn().close() }, "close 1006"},
		"report forgotten":   {func(_ *manager, l *Link) { l.ReportDown("Probe", "", nil) }, "does not know the session any more"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &manager{on: func(c *conn, step string, r request) bool {
				if step == "lan notifyServiceDown Probe" {
					c.send(forget(r))
					return true
				}
				return false
			}}
			l, o := linked(t, m)
			expect[Up](t, o)
			test.act(m, l)
			down := expect[Down](t, o)
			if got := down.Err.Error(); !strings.Contains(got, test.want) || !strings.Contains(got, down.LANManager) || strings.Contains(got, "%!") {
				t.Errorf("error %q, want the place and %q", got, test.want)
			}
			expect[Up](t, o)
		})
	}
}

// TestForgottenBeginning: an "f" at any step of the beginning costs one
// attempt.
func TestForgottenBeginning(t *testing.T) {
	for _, at := range beginning {
		t.Run(at, func(t *testing.T) {
			var first atomic.Bool
			m := &manager{on: func(c *conn, step string, r request) bool {
				if step != at || !first.CompareAndSwap(false, true) {
					return false
				}
				c.send(forget(r))
				return true
			}}
			_, o := linked(t, m)
			if got := expect[Down](t, o).Err.Error(); !strings.Contains(got, "does not know the session") {
				t.Errorf("error %q", got)
			}
			expect[Up](t, o)
		})
	}
}

// beginning are the steps of the beginning of a session.
var beginning = []string{"introduce", "lan subConnect needs", "lan subConnect services",
	"needs attach", "needs confirmReservation", "needs query", "services attach", "services confirmReservation", "services query"}

// wholeCycle are the steps of the beginning and of a need that is served and
// reported down.
var wholeCycle = append(slices.Clone(beginning),
	"needs subConnect Probe", "Probe attach", "Probe confirmReservation", "Probe bid", "Probe respond", "lan notifyServiceDown Probe")

// cycle drives a Link through the whole cycle, as often as a session is lost,
// and returns all events.
func (o *owner) cycle(t *testing.T, l *Link) []Event {
	t.Helper()
	var events []Event
	reported := false
	for {
		e := o.next(t)
		events = append(events, e)
		switch e := e.(type) {
		case Up:
			reported = false
			l.Bid("Probe")
		case Challenged:
			e.Bid.Respond(answer("Probe"))
		case ServiceSet:
			reported = true
			l.ReportDown("Probe", "it ended", nil)
		case NeedOpened:
			if reported {
				return events
			}
		}
	}
}

// TestCut cuts the connection right after each request of a whole cycle. The
// Link comes back, the cycle works, and nothing of the lost session is heard
// after that.
func TestCut(t *testing.T) {
	for k := range wholeCycle {
		t.Run(fmt.Sprintf("%d %s", k+1, wholeCycle[k]), func(t *testing.T) {
			t.Cleanup(func() { goleak.VerifyNone(t) })
			var asked atomic.Int32
			m := &manager{needs: []string{need("Probe", "")}, on: func(c *conn, _ string, _ request) bool {
				n := int(asked.Add(1))
				if n == k+1 {
					c.close()
				}
				return n == k+1
			}}
			l, o := linked(t, m)
			events := o.cycle(t, l)
			wantClean(t, events)
			downs := 0
			for _, e := range events {
				if _, ok := e.(Down); ok {
					downs++
				}
			}
			if downs != 1 {
				t.Errorf("%d sessions were lost, want 1", downs)
			}
			if n := len(m.asked()); n < k+1+len(wholeCycle) {
				t.Errorf("%d requests, want a second whole cycle", n)
			}
		})
	}
}

// wantClean makes sure that the events of a session are between its Up and
// its Down, all words about its bids included.
func wantClean(t *testing.T, events []Event) {
	t.Helper()
	up := false
	past := make(map[*Bid]bool)
	now := make(map[*Bid]bool)
	word := func(b *Bid) {
		if past[b] {
			t.Errorf("a bid of a lost session speaks again")
		}
		now[b] = true
	}
	var log []string
	for _, e := range events {
		log = append(log, show(e))
		_, isUp := e.(Up)
		_, isDown := e.(Down)
		if !isDown && isUp == up {
			t.Errorf("%s while up is %v", show(e), up)
		}
		switch e := e.(type) {
		case Up:
			up = true
		case Down:
			up = false
			for b := range now {
				past[b] = true
			}
		case Pending:
			word(e.Bid)
		case Challenged:
			word(e.Bid)
		case BidEnded:
			word(e.Bid)
		}
	}
	if t.Failed() {
		t.Logf("events:\n%s", strings.Join(log, "\n"))
	}
}

// TestBidsEndFirst: a slow owner hears the end of every bid before it hears
// that the session is down, and so before the next one is up.
func TestBidsEndFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manager{t: t, needs: []string{need("A", ""), need("B", "")}}
		o := newOwner()
		c := config(o, "lan:23552")
		l := New(c)
		l.Config.Emit = slow(o, func(e Event) bool { _, ok := e.(BidEnded); return ok })
		l.dial = pipe(m.serve)
		run(t, l)
		expect[Up](t, o)
		l.Bid("A")
		l.Bid("B")
		expect[Challenged](t, o)
		expect[Challenged](t, o)
		m.conn().close()
		for range 2 {
			if e := expect[BidEnded](t, o); e.Outcome != Lost {
				t.Errorf("a bid ended as %s, want Lost", e.Outcome)
			}
		}
		expect[Down](t, o)
		expect[Up](t, o)
	})
}

// TestSilence: at every step of the beginning a LAN manager that says nothing
// is given up after ten seconds. The answers to an attachment are waited for
// by nobody.
func TestSilence(t *testing.T) {
	for _, at := range beginning {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &manager{on: func(_ *conn, step string, _ request) bool { return step == at }}
				began := time.Now()
				_, o := piped(t, m)
				if strings.HasSuffix(at, "attach") || strings.HasSuffix(at, "confirmReservation") {
					expect[Up](t, o)
					return
				}
				down := expect[Down](t, o)
				if after := time.Since(began); after != stepWithin {
					t.Errorf("given up after %s, want %s", after, stepWithin)
				}
				got := down.Err.Error()
				if !strings.Contains(got, "lan:23552") || !strings.Contains(got, "no answer within 10s: what listens there is overloaded, or does not speak like a LAN manager") {
					t.Errorf("error %q", got)
				}
				o.none(t)
			})
		})
	}
}

// TestEachStepHasItsTime: a LAN manager that takes longer than stepWithin for all
// steps of the beginning together gets its session.
func TestEachStepHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Minute) }) // for the manager's last sleep
		m := &manager{on: func(*conn, string, request) bool {
			time.Sleep(2 * time.Second)
			return false
		}}
		began := time.Now()
		_, o := piped(t, m)
		expect[Up](t, o)
		if took := time.Since(began); took <= stepWithin {
			t.Errorf("up after %s, which says nothing", took)
		}
	})
}

// TestReadingGoesOn: while the tables are read each item has the time of a step,
// and the next one may be as late.
func TestReadingGoesOn(t *testing.T) {
	for name, test := range map[string]struct {
		pause time.Duration // before each item
		up    bool
	}{
		"slowly":    {stepWithin - time.Millisecond, true},
		"no longer": {stepWithin + time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				t.Cleanup(func() { time.Sleep(time.Minute) }) // for the manager's last sleep
				began := time.Now()
				m := &manager{on: func(c *conn, step string, r request) bool {
					if step != "services query" {
						return false
					}
					c.mu.Lock()
					c.queries["services"] = r.id
					c.mu.Unlock()
					c.send(c.item("services", `["rb","x"]`))
					for _, item := range []string{`["r1","x",` + service("A", "127.0.0.1") + `]`, `["re","x"]`} {
						time.Sleep(test.pause)
						c.send(c.item("services", item))
					}
					return true
				}}
				_, o := piped(t, m)
				if test.up {
					expect[Up](t, o)
					return
				}
				down := expect[Down](t, o)
				if after := time.Since(began); after != stepWithin || !strings.Contains(down.Err.Error(), "reading of the tables: no answer within 10s") {
					t.Errorf("given up %s after the last item: %v", after, down.Err)
				}
			})
		})
	}
}

// TestOwnerTakesUpLate: what the owner has to do before it takes Up is no fault
// of the LAN manager.
func TestOwnerTakesUpLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner()
		l := New(config(o, "lan:23552"))
		l.Config.Emit = func(ctx context.Context, e Event) {
			select {
			case <-time.After(stepWithin + time.Second):
			case <-ctx.Done():
			}
			o.emit(ctx, e)
		}
		l.dial = pipe((&manager{t: t}).serve)
		run(t, l)
		expect[Up](t, o)
		time.Sleep(time.Minute)
		synctest.Wait()
		o.none(t)
	})
}

// TestSilenceOfSession: a LAN manager that falls silent, its pongs too, is
// lost after twenty seconds.
func TestSilenceOfSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := make(chan struct{})
		m := &manager{t: t}
		o := newOwner()
		l := New(config(o, "lan:23552"))
		l.dial = pipe(func(f frames) { m.serve(&mute{frames: f, dead: dead}) })
		run(t, l)
		expect[Up](t, o)
		time.Sleep(time.Hour) // its pings keep it up
		synctest.Wait()
		o.none(t)
		close(dead)
		began := time.Now()
		if got := expect[Down](t, o).Err.Error(); !strings.Contains(got, "no word from the LAN manager for 20s") {
			t.Errorf("error %q", got)
		}
		if after := time.Since(began); after > 20*time.Second {
			t.Errorf("lost after %s", after)
		}
	})
}

// mute is frames whose writes come to nothing from some time on.
type mute struct {
	frames
	dead chan struct{}
}

func (m *mute) write(frame string) error {
	select {
	case <-m.dead:
		return nil
	default:
		return m.frames.write(frame)
	}
}

// TestNothingAfterFailedReading: a session that never was up is not used.
func TestNothingAfterFailedReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manager{on: func(_ *conn, step string, _ request) bool { return step == "services query" }}
		l, o := piped(t, m)
		expect[Down](t, o)
		if l.current() != nil {
			t.Error("the failed session is still the current one")
		}
		if b := l.Bid("Probe"); expect[BidEnded](t, o).Bid != b {
			t.Error("another bid ended")
		}
		if diff := cmp.Diff(ErrNoSession.Error(), l.AddNeed(t.Context(), table.Need{InstanceName: "A"}).Error()); diff != "" {
			t.Error(diff)
		}
	})
}
