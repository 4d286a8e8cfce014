package link

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// All tests of this file run in a bubble: their waits are those of the design,
// to the nanosecond.

// bidding starts a Link in the bubble whose manager has one open need, Probe,
// and answers those requests in its own way.
func bidding(t *testing.T, on map[string]func(c *conn, r request)) (*Link, *owner, *manager) {
	t.Helper()
	m := &manager{needs: []string{need("Probe", "")}}
	m.on = func(c *conn, step string, r request) bool {
		act, ok := on[step]
		if ok {
			act(c, r)
		}
		return ok
	}
	l, o := piped(t, m)
	expect[Up](t, o)
	return l, o, m
}

func silent(*conn, request) {}

func rejecting(code string) func(*conn, request) {
	return func(c *conn, r request) { c.send(reject(r, code)) }
}

func resolving(value string) func(*conn, request) {
	return func(c *conn, r request) { c.send(resolve(r, value)) }
}

// wantEnd is the end of a bid, and all that is heard of it.
func wantEnd(t *testing.T, o *owner, want Outcome) error {
	t.Helper()
	e := expect[BidEnded](t, o)
	if e.Outcome != want || (e.Err == nil) != (want == Accepted) {
		t.Errorf("the bid ended as %s, error %v; want %s", e.Outcome, e.Err, want)
	}
	synctest.Wait()
	o.none(t)
	return e.Err
}

// wantAsked compares what was asked of the manager since the beginning.
func wantAsked(t *testing.T, m *manager, want ...string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, m.asked()[len(beginning):]); diff != "" {
		t.Errorf("asked of the manager (-want +got):\n%s", diff)
	}
}

// upToBid are the requests of a bid up to its own.
var upToBid = []string{"needs subConnect Probe", "Probe attach", "Probe confirmReservation", "Probe bid"}

func TestBidUnits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, o, m := bidding(t, nil)
		l.Bid("Probe")
		c := expect[Challenged](t, o)
		a := answer("Probe")
		c.Bid.Respond(a)
		a.PID = 1
		c.Bid.Respond(a) // only the first counts
		c.Bid.Respond(a)
		synctest.Wait()
		wantAsked(t, m, append(slices.Clone(upToBid), "Probe respond")...)
		n, s := m.conn().session("needs"), m.conn().session("Probe")
		want := []string{
			fmt.Sprintf(`[%q,null],["!",["subConnect",["Probe",{"name":"127.0.0.1"}]]]]`, n),
			fmt.Sprintf(`[%q,null]]`, s),
			fmt.Sprintf(`[%q,null],["!",["confirmReservation",[]]]]`, s),
			fmt.Sprintf(`[%q,null],["!",["bid",[{"ipaddress":"127.0.0.1"}]]]]`, s),
			fmt.Sprintf(`[%q,null],["!",["respond",["ticket",{"httpport":null,"instancename":"Probe","ipaddress":"127.0.0.1","modulename":"probe","pid":4711,"tcpport":15000,"wsport":null}]]]]`, s),
		}
		if diff := cmp.Diff(want, m.sent()[len(beginning):]); diff != "" {
			t.Errorf("units (-want +got):\n%s", diff)
		}
		m.conn().close()
	})
}

// TestEndOfAWonNeed: the LAN manager ends the session of a need that was won. One
// that does not is asked to, so that such sessions do not pile up.
func TestEndOfAWonNeed(t *testing.T) {
	for name, ends := range map[string]bool{"ended": true, "not ended": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				on := map[string]func(*conn, request){}
				if !ends {
					on["Probe respond"] = resolving(`{"a":"ticket"}`)
				}
				l, o, m := bidding(t, on)
				l.Bid("Probe")
				expect[Challenged](t, o).Bid.Respond(answer("Probe"))
				time.Sleep(dieWithin - 1)
				wantAsked(t, m, append(slices.Clone(upToBid), "Probe respond")...)
				time.Sleep(time.Minute)
				synctest.Wait()
				if died := slices.Contains(m.asked(), "Probe die"); died == ends {
					t.Errorf("it was asked for the end: %v", died)
				}
			})
		})
	}
}

// TestBidOfAddress: the configured address is what a bid names, while the
// session of the need goes by the one that the LAN manager sees.
func TestBidOfAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manager{t: t, needs: []string{need("Probe", "")}}
		o := newOwner()
		c := config(o, "lan:23552")
		c.Address = "10.1.2.3"
		l := New(c)
		l.dial = pipe(m.serve)
		run(t, l)
		expect[Up](t, o)
		l.Bid("Probe")
		expect[Challenged](t, o)
		units := strings.Join(m.sent(), "\n")
		if !strings.Contains(units, `["bid",[{"ipaddress":"10.1.2.3"}]]`) || !strings.Contains(units, `["subConnect",["Probe",{"name":"127.0.0.1"}]]`) {
			t.Errorf("units:\n%s", units)
		}
	})
}

// TestPending: a bid that is not answered is said to be pending, once, and
// goes on when the answer comes.
func TestPending(t *testing.T) {
	for _, step := range []string{"needs subConnect Probe", "Probe bid"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var held request
				l, o, m := bidding(t, map[string]func(*conn, request){step: func(_ *conn, r request) { held = r }})
				began := time.Now()
				b := l.Bid("Probe")
				if e := expect[Pending](t, o); e.Bid != b {
					t.Error("another bid is pending")
				}
				if after := time.Since(began); after != pendingAfter {
					t.Errorf("pending after %s", after)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				o.none(t)
				m.answer(m.conn(), held)
				expect[Challenged](t, o).Bid.Respond(answer("Probe"))
				o.wantAll(t, "bid Probe accepted", "need Probe taken", "need Probe gone", "service Probe at 127.0.0.1 {15000 0 0}")
			})
		})
	}
}

// wantAll compares the next events with those, in any order.
func (o *owner) wantAll(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for range want {
		got = append(got, show(o.next(t)))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// TestPendingComesFirst: also when the owner is slow to hear of it.
func TestPendingComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manager{t: t, needs: []string{need("Probe", "")}}
		m.on = func(c *conn, step string, r request) bool {
			if step != "Probe bid" {
				return false
			}
			time.Sleep(pendingAfter + time.Millisecond)
			c.send(resolve(r, `{"rejected":true}`))
			return true
		}
		o := newOwner()
		c := config(o, "lan:23552")
		c.Emit = slow(o, func(e Event) bool { _, ok := e.(Pending); return ok })
		l := New(c)
		l.dial = pipe(m.serve)
		run(t, l)
		expect[Up](t, o)
		l.Bid("Probe")
		o.wantNext(t, "bid Probe pending", "bid Probe rejected")
	})
}

// TestCancel: a bid that is taken back is not heard of any more, at whatever
// step, and its need is free for others.
func TestCancel(t *testing.T) {
	for _, test := range []struct {
		name string
		at   string // is not answered
		wait time.Duration
		want []string // what was asked
	}{
		{"before the need answers", "needs subConnect Probe", time.Second, []string{"needs subConnect Probe"}},
		{"before it is pending", "Probe bid", time.Millisecond, append(slices.Clone(upToBid), "Probe die")},
		{"pending", "Probe bid", time.Second, append(slices.Clone(upToBid), "Probe die")},
		{"challenged", "", time.Second, append(slices.Clone(upToBid), "Probe die")},
		{"responded", "Probe respond", time.Second, append(slices.Clone(upToBid), "Probe respond", "Probe die")},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var held request
				l, o, m := bidding(t, map[string]func(*conn, request){test.at: func(_ *conn, r request) { held = r }})
				b := l.Bid("Probe")
				if test.at == "" || test.at == "Probe respond" {
					expect[Challenged](t, o)
				}
				if test.at == "Probe respond" {
					b.Respond(answer("Probe"))
				}
				time.Sleep(test.wait)
				if test.wait > pendingAfter && len(o.events) > 0 {
					expect[Pending](t, o)
				}
				b.Cancel()
				b.Cancel()
				wantAsked(t, m, test.want...)
				if test.at != "" {
					m.answer(m.conn(), held) // too late
				}
				if test.at == "Probe respond" {
					o.wantNext(t, "need Probe taken", "need Probe gone", "service Probe at 127.0.0.1 {15000 0 0}")
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				o.none(t)
				wantAsked(t, m, test.want...)
			})
		})
	}
}

// TestOddAnswers: whatever is no challenge is a refusal.
func TestOddAnswers(t *testing.T) {
	for _, value := range []string{`{"rejected":true}`, `{"bid":"x","rejected":true,"c":true}`, `{"bid":"x"}`, `{}`, `null`, `5`, `"c"`, `[]`, `{"rejected":1}`} {
		t.Run(value, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, o, m := bidding(t, map[string]func(*conn, request){"Probe bid": resolving(value)})
				l.Bid("Probe")
				err := wantEnd(t, o, Rejected)
				if !strings.Contains(err.Error(), value) {
					t.Errorf("error %q does not say what was answered", err)
				}
				wantAsked(t, m, append(slices.Clone(upToBid), "Probe die")...)
			})
		})
	}
}

// TestRefusedSteps: an error or a loss at any step of a bid ends it, and with
// an error its need is let go.
func TestRefusedSteps(t *testing.T) {
	forgets := func(c *conn, r request) { c.send(forget(r)) }
	ends := func(c *conn, r request) { c.send(ended(r.session)) }
	die := append(slices.Clone(upToBid), "Probe die")
	responded := append(slices.Clone(upToBid), "Probe respond")
	for name, test := range map[string]struct {
		at   string
		act  func(*conn, request)
		err  error
		want []string
	}{
		"subConnect rejected": {"needs subConnect Probe", rejecting("NO"), nil, upToBid[:1]},
		"subConnect odd":      {"needs subConnect Probe", resolving("7"), nil, upToBid[:1]},
		"attach forgotten":    {"Probe attach", forgets, wire.ErrForgotten, upToBid},
		"confirm rejected":    {"Probe confirmReservation", rejecting("NO"), nil, upToBid},
		"bid rejected":        {"Probe bid", rejecting("METHOD_DOES_NOT_EXIST"), nil, die},
		"bid forgotten":       {"Probe bid", forgets, wire.ErrForgotten, upToBid},
		"ended while bidding": {"Probe bid", ends, wire.ErrEnded, upToBid},
		"respond destroyed":   {"Probe respond", rejecting("ALREADY_DESTROYED"), nil, append(slices.Clone(responded), "Probe die")},
		"respond odd":         {"Probe respond", rejecting("Need  is not of a type(s) object"), nil, append(slices.Clone(responded), "Probe die")},
		"respond forgotten":   {"Probe respond", forgets, wire.ErrForgotten, responded},
		"ended by response":   {"Probe respond", ends, wire.ErrEnded, responded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, o, m := bidding(t, map[string]func(*conn, request){test.at: test.act})
				b := l.Bid("Probe")
				if strings.HasSuffix(test.at, "respond") {
					expect[Challenged](t, o)
					b.Respond(answer("Probe"))
				}
				err := wantEnd(t, o, Destroyed)
				if test.err != nil && !errors.Is(err, test.err) {
					t.Errorf("error %v, want %v", err, test.err)
				}
				wantAsked(t, m, test.want...)
			})
		})
	}
}

// TestEndedWhileChallenged: the need went to somebody else, or away, before
// the process was ready.
func TestEndedWhileChallenged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, o, m := bidding(t, nil)
		b := l.Bid("Probe")
		expect[Challenged](t, o)
		m.conn().send(ended(m.conn().session("Probe")))
		wantEnd(t, o, Destroyed)
		b.Respond(answer("Probe"))
		b.Cancel()
		wantAsked(t, m, upToBid...)
	})
}

// TestDieForgotten: that the LAN manager does not know the session any more
// is as good.
func TestDieForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, o, _ := bidding(t, map[string]func(*conn, request){
			"Probe bid": resolving(`{"rejected":true}`),
			"Probe die": func(c *conn, r request) { c.send(forget(r)) },
		})
		l.Bid("Probe")
		wantEnd(t, o, Rejected)
		l.Bid("Probe") // the session on needs is not hurt
		wantEnd(t, o, Rejected)
	})
}

// TestNoAnswerToResponse: after thirty seconds the need is let go, and the
// owner hears of it, even if that is not answered either.
func TestNoAnswerToResponse(t *testing.T) {
	for name, die := range map[string]func(*conn, request){"then dead": nil, "then nothing": silent} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				on := map[string]func(*conn, request){"Probe respond": silent}
				atMost := answerWithin
				if die != nil {
					on["Probe die"] = die
					atMost += dieWithin
				}
				l, o, m := bidding(t, on)
				b := l.Bid("Probe")
				expect[Challenged](t, o)
				began := time.Now()
				b.Respond(answer("Probe"))
				wantEnd(t, o, TimedOut)
				if after := time.Since(began); after < answerWithin || after > atMost {
					t.Errorf("ended after %s, want %s to %s", after, answerWithin, atMost)
				}
				wantAsked(t, m, append(slices.Clone(upToBid), "Probe respond", "Probe die")...)
			})
		})
	}
}

// responses counts the responses, when they came, and rejects them until the
// n-th, counted from 1; 0 is none of them.
type responses struct {
	began time.Time
	n     int
	at    []time.Duration
}

func (s *responses) take(m *manager) func(c *conn, r request) {
	return func(c *conn, r request) {
		s.at = append(s.at, time.Since(s.began))
		if len(s.at) == s.n {
			m.call(c, r)
			return
		}
		c.send(reject(r, "NO_PORTS_REACHABLE"))
	}
}

// reaching starts a Link whose first challenge has been answered, while the
// manager can not connect until the n-th response.
func reaching(t *testing.T, n int) (*Link, *owner, *manager, *responses, *Bid) {
	t.Helper()
	s := &responses{n: n}
	var m *manager
	on := map[string]func(*conn, request){"Probe respond": func(c *conn, r request) { s.take(m)(c, r) }}
	l, o, m := bidding(t, on)
	b := l.Bid("Probe")
	expect[Challenged](t, o)
	s.began = time.Now()
	b.Respond(answer("Probe"))
	return l, o, m, s, b
}

func milliseconds(n ...int) []time.Duration {
	var d []time.Duration
	for _, n := range n {
		d = append(d, time.Duration(n)*time.Millisecond)
	}
	return d
}

// TestUnreachable: the response is repeated after 0.2, 0.5, 1 and 2 s.
func TestUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, o, m, s, _ := reaching(t, 0)
		err := wantEnd(t, o, Unreachable)
		if !strings.Contains(err.Error(), "NO_PORTS_REACHABLE") {
			t.Errorf("error %v", err)
		}
		if diff := cmp.Diff(milliseconds(0, 200, 700, 1700, 3700), s.at); diff != "" {
			t.Errorf("responses (-want +got):\n%s", diff)
		}
		if asked := m.asked(); asked[len(asked)-1] != "Probe die" {
			t.Errorf("asked at last: %s, want the end of the session", asked[len(asked)-1])
		}
	})
}

// TestWithheld: what is not true any more is not said again.
func TestWithheld(t *testing.T) {
	for said := range 3 {
		synctest.Test(t, func(t *testing.T) {
			s := &responses{}
			var m *manager
			l, o, m := bidding(t, map[string]func(*conn, request){"Probe respond": func(c *conn, r request) { s.take(m)(c, r) }})
			b := l.Bid("Probe")
			expect[Challenged](t, o)
			stolen, a := errors.New("stolen"), answer("Probe")
			a.Still = func() error {
				if len(s.at) == said {
					return stolen
				}
				return nil
			}
			b.Respond(a)
			if err := wantEnd(t, o, Withheld); err != stolen {
				t.Errorf("error %v, want the owner's", err)
			}
			if asked := m.asked(); len(s.at) != said || asked[len(asked)-1] != "Probe die" {
				t.Errorf("%d responses, want %d; asked at last: %s, want the end of the session", len(s.at), said, asked[len(asked)-1])
			}
		})
	}
}

func TestReachableAtLast(t *testing.T) {
	for n, want := range map[int][]time.Duration{1: milliseconds(0), 3: milliseconds(0, 200, 700), 5: milliseconds(0, 200, 700, 1700, 3700)} {
		synctest.Test(t, func(t *testing.T) {
			_, o, m, s, _ := reaching(t, n)
			o.wantAll(t, "bid Probe accepted", "need Probe taken", "need Probe gone", "service Probe at 127.0.0.1 {15000 0 0}")
			if diff := cmp.Diff(want, s.at); diff != "" {
				t.Errorf("responses (-want +got):\n%s", diff)
			}
			synctest.Wait()
			if slices.Contains(m.asked(), "Probe die") {
				t.Error("a session that was accepted was ended")
			}
		})
	}
}

// TestWaitForPortsEnds: what happens between two responses counts.
func TestWaitForPortsEnds(t *testing.T) {
	for name, test := range map[string]struct {
		act  func(m *manager, b *Bid)
		want []string
		die  bool
	}{
		"cancelled": {func(_ *manager, b *Bid) { b.Cancel() }, nil, true},
		"ended":     {func(m *manager, _ *Bid) { m.conn().send(ended(m.conn().session("Probe"))) }, []string{"bid Probe need gone"}, false},
		"lost":      {func(m *manager, _ *Bid) { m.conn().close() }, []string{"bid Probe session lost", "down: session with the LAN manager at lan:23552: EOF", "up seen as 127.0.0.1, needs [Probe], services []"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, o, m, s, b := reaching(t, 0)
				time.Sleep(time.Second) // the third response is through
				test.act(m, b)
				o.wantNext(t, test.want...)
				time.Sleep(time.Minute)
				synctest.Wait()
				o.none(t)
				if len(s.at) != 3 {
					t.Errorf("%d responses, want 3", len(s.at))
				}
				if got := slices.Contains(m.asked(), "Probe die"); got != test.die {
					t.Errorf("the session of the need was ended: %v, want %v", got, test.die)
				}
			})
		})
	}
}

func TestBidWithoutSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOwner()
		l := New(config(o, "lan:23552"))
		l.dial = pipe((&manager{t: t, on: func(*conn, string, request) bool { return true }}).serve)
		run(t, l)
		synctest.Wait()
		b := l.Bid("Probe")
		if err := wantEnd(t, o, Lost); !errors.Is(err, ErrNoSession) {
			t.Errorf("error %v", err)
		}
		b.Respond(Answer{})
		b.Cancel()
	})
}

// TestManyBids: the bids of a burst do not stand in each other's way.
func TestManyBids(t *testing.T) {
	const many = 200
	m := &manager{}
	for n := range many {
		m.needs = append(m.needs, need(fmt.Sprint("N", n), ""))
	}
	l, o := linked(t, m)
	for _, n := range expect[Up](t, o).Needs {
		l.Bid(n.InstanceName)
	}
	accepted, served := 0, make(map[string]bool)
	for accepted < many || len(served) < many {
		switch e := o.next(t).(type) {
		case Challenged:
			e.Bid.Respond(answer(e.Bid.Instance))
		case BidEnded:
			if e.Outcome != Accepted {
				t.Fatalf("%s: %v", show(e), e.Err)
			}
			accepted++
		case ServiceSet:
			if e.Service.Ports != (table.Ports{TCP: 15000}) || served[e.Service.InstanceName] {
				t.Fatalf("odd or second: %s", show(e))
			}
			served[e.Service.InstanceName] = true
		}
	}
}
