package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestStatesComeBeforeTheAnswer(t *testing.T) {
	told := make(chan struct{})
	c := against(t, ClientOptions{}, func(p *peer) {
		u := p.next(Introduce, "")
		if diff := cmp.Diff(`{"ip":{"name":"any_name","role":"user"}}`, string(u.Credentials)); diff != "" {
			t.Error(diff)
		}
		p.say(`["oob",["other","s",{"p":["name"],"o":"s","d":"10.0.0.1"}]]`,
			`["oob",["S","s",{"p":["haveneeds"],"o":"s","d":true}]]`,
			`["oob",["S","s",{"p":["name"],"o":"s","d":"127.0.0.1"}]]`,
			`["oob",["S","s",{"p":["a","deep"],"o":"s","d":1}]]`,
			`["oob",["S","s",5]]`, `["oob",["S","x",["EXCLUSIVE",""]]]`,
			resolve(u, `{"session":"S","role":"user","modulename":"lm"}`))
		p.next(Call, "go")
		p.say(`["oob",["S","s",{"p":["name"],"o":"u","d":["127.0.0.2","127.0.0.1"]}]]`,
			`["oob",["S","s",{"p":["haveneeds"],"o":"sr","d":true}]]`, `["r","2",null]`)
		close(told)
		p.untilGone()
	})
	s := introduce(t, c)
	if s.ID() != "S" || s.Role() != "user" || s.ModuleName() != "lm" {
		t.Errorf("session %q, role %q, module %q", s.ID(), s.Role(), s.ModuleName())
	}
	state := func(name string) string { value, _ := s.State(name); return string(value) }
	if state("name") != `"127.0.0.1"` || state("haveneeds") != "true" || state("a") != "" {
		t.Errorf("name %s, haveneeds %s", state("name"), state("haveneeds"))
	}
	if _, err := s.Call(t.Context(), Business, "go"); err != nil {
		t.Fatal(err)
	}
	<-told
	if state("name") != `"127.0.0.2"` || state("haveneeds") != "" {
		t.Errorf("then name %s, haveneeds %s", state("name"), state("haveneeds"))
	}
}

func TestRefusedIntroductions(t *testing.T) {
	c := against(t, ClientOptions{}, func(p *peer) {
		p.next(Introduce, "")
		p.say(`{"err":{}}`)
		u := p.next(Introduce, "")
		p.say(fmt.Sprintf(`["e",%q,{"code":"ROLE","message":"unknown"}]`, u.ID))
		u = p.next(Introduce, "")
		p.say(fmt.Sprintf(`["f",[%q,[null,null]]]`, u.ID))
		u = p.next(Introduce, "")
		p.say(resolve(u, `{"role":"user"}`))
		p.welcome()
		u = p.next(Call, "go")
		p.say(`{"err":{}}`, resolve(u, "null"))
		u = p.next(Introduce, "")
		p.say(resolve(u, `{"session":"S"}`))
		p.untilGone()
	})
	ctx := t.Context()
	if _, err := c.Introduce(ctx, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("refused without an id: %v", err)
	}
	var rejected *RejectedError
	if _, err := c.Introduce(ctx, nil); !errors.Is(err, ErrRefused) || !errors.As(err, &rejected) || rejected.Code != "ROLE" {
		t.Errorf("refused with an id: %v", err)
	}
	if _, err := c.Introduce(ctx, nil); !errors.Is(err, ErrForgotten) {
		t.Errorf("forgotten: %v", err)
	}
	if _, err := c.Introduce(ctx, nil); err == nil {
		t.Error("a session without a name")
	}
	// The answer to the call comes after a refusal that means nobody: none waits then.
	if _, err := introduce(t, c).Call(ctx, Business, "go"); err != nil {
		t.Errorf("a call beside a refusal of nobody: %v", err)
	}
	if _, err := c.Introduce(ctx, nil); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("the same session twice: %v", err)
	}
	if _, err := c.Introduce(ctx, func() {}); err == nil {
		t.Error("credentials without a JSON form")
	}
}

// A server that refuses with an id and then in the original's form means one
// introduction, not two.
func TestRefusalInBothForms(t *testing.T) {
	c := against(t, ClientOptions{}, func(p *peer) {
		first := p.next(Introduce, "")
		second := p.next(Introduce, "")
		p.say(fmt.Sprintf(`["e",%q,{"code":"NO","message":""}]`, first.ID), `{"err":{}}`,
			resolve(second, `{"session":"S2"}`))
		p.untilGone()
	})
	results := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := c.Introduce(t.Context(), nil)
			results <- err
		}()
	}
	first, second := <-results, <-results
	if errors.Is(first, ErrRefused) == errors.Is(second, ErrRefused) {
		t.Errorf("errors %v and %v", first, second)
	}
}

// The introduction of a reserved session and its confirmation ride with the
// first call.
func TestSubSavesARoundTrip(t *testing.T) {
	c := against(t, ClientOptions{}, func(p *peer) {
		p.welcome()
		u := p.next(Call, "subConnect")
		if diff := cmp.Diff(`["needs",{"role":"user"}]`, argsOf(u)); diff != "" || u.Session != "S" {
			t.Error(diff)
		}
		p.say(resolve(u, `{"introduce":{"session":"N","modulename":"need","role":"user"}}`))
		frame := p.frame()
		if len(frame) != 3 || frame[0].Kind != Introduce || frame[0].Session != "N" || frame[0].Credentials != nil ||
			frame[1].Method != "confirmReservation" || argsOf(frame[1]) != "[]" || frame[2].Method != "bid" {
			t.Errorf("the frame has %+v", frame)
		}
		p.say(resolve(frame[0], `{"session":"N"}`), resolve(frame[1], `"ok"`), resolve(frame[2], `{"rejected":true}`))
		second := p.frame()
		if len(second) != 1 {
			t.Errorf("the next frame has %+v", second)
		}
		p.say(resolve(second[0], `1`))
		p.untilGone()
	})
	sub, err := introduce(t, c).Sub(t.Context(), "needs", map[string]string{"role": "user"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`{"rejected":true}`, `1`} {
		value, err := sub.Call(t.Context(), Protocol, "bid", struct{}{})
		if err != nil || string(value) != want {
			t.Errorf("got %s, %v, want %s", value, err, want)
		}
	}
}

func argsOf(u Unit) string {
	text, _ := json.Marshal(u.Args)
	return string(text)
}

// What the LAN manager can answer instead of letting a reserved session in.
func TestAttachFails(t *testing.T) {
	answers := map[string]func(introduce, confirm Unit) string{
		"forgotten": func(u, _ Unit) string { return fmt.Sprintf(`["f",%s]`, u.AppendJSON(nil)) },
		"rejected":  func(_, u Unit) string { return fmt.Sprintf(`["e",%q,{"code":"NO"}]`, u.ID) },
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			c := against(t, ClientOptions{}, func(p *peer) {
				p.welcome()
				p.say(resolve(p.next(Call, "subConnect"), `{"introduce":{"session":"N"}}`))
				u, confirm := p.next(Introduce, ""), p.next(Call, "confirmReservation")
				p.next(Call, "bid")
				p.say(answer(u, confirm))
				p.untilGone()
			})
			sub, err := introduce(t, c).Sub(t.Context(), "P", nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := sub.Call(t.Context(), Protocol, "bid"); err == nil {
				t.Error("the call succeeded")
			}
			<-sub.Done()
			if sub.Err() == nil {
				t.Error("the session has no error")
			}
			if err := sub.Die(t.Context()); err != nil {
				t.Errorf("Die of a dead session: %v", err)
			}
		})
	}
}

func TestSubGetsNoSession(t *testing.T) {
	c := against(t, ClientOptions{}, func(p *peer) {
		p.welcome()
		for _, answer := range []string{`null`, `{}`, `{"introduce":5}`, `{"introduce":{"session":""}}`, `{"introduce":{"session":"S"}}`} {
			p.say(resolve(p.next(Call, "subConnect"), answer))
		}
		p.say(fmt.Sprintf(`["e",%q,{"code":"NO","message":"such"}]`, p.next(Call, "subConnect").ID))
		p.untilGone()
	})
	s := introduce(t, c)
	for range 5 {
		if sub, err := s.Sub(t.Context(), "x", nil); err == nil {
			t.Errorf("got a session %q", sub.ID())
		}
	}
	var rejected *RejectedError
	if _, err := s.Sub(t.Context(), "x", nil); !errors.As(err, &rejected) || !strings.Contains(err.Error(), "NO: such") {
		t.Errorf("error %v", err)
	}
}

func TestSessionEnds(t *testing.T) {
	tests := map[string]struct {
		reply func(u Unit) string
		want  error
	}{
		"by the server": {func(Unit) string { return `["oob",["S","-",true]]` }, ErrEnded},
		"forgotten":     {func(u Unit) string { return fmt.Sprintf(`["f",%s]`, u.AppendJSON(nil)) }, ErrForgotten},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := against(t, ClientOptions{}, func(p *peer) {
				p.welcome()
				p.next(Call, "query")
				p.say(test.reply(p.next(Call, "wait")))
				p.untilGone()
			})
			s := introduce(t, c)
			var query sync.WaitGroup
			query.Go(func() {
				if err := s.Query(t.Context(), nil, func(json.RawMessage) {}); !errors.Is(err, test.want) {
					t.Errorf("the query ended with %v", err)
				}
			})
			for { // the query goes first
				c.mu.Lock()
				began := c.lastID == 2
				c.mu.Unlock()
				if began {
					break
				}
				runtime.Gosched()
			}
			if _, err := s.Call(t.Context(), Protocol, "wait"); !errors.Is(err, test.want) {
				t.Errorf("the call ended with %v", err)
			}
			query.Wait()
			<-s.Done()
			if !errors.Is(s.Err(), test.want) {
				t.Errorf("the session ended with %v", s.Err())
			}
			if _, err := s.Call(t.Context(), Protocol, "more"); !errors.Is(err, test.want) {
				t.Errorf("the next call ended with %v", err)
			}
			if err := s.Die(t.Context()); err != nil {
				t.Errorf("Die: %v", err)
			}
		})
	}
}

// The two halves of the answer to die come in any order, or not at all.
func TestDie(t *testing.T) {
	for _, order := range []string{"end, answer", "answer, end", "answer", "end", "forget"} {
		t.Run(order, func(t *testing.T) {
			c := against(t, ClientOptions{}, func(p *peer) {
				p.welcome()
				u := p.next(Call, "die")
				for word := range strings.SplitSeq(order, ", ") {
					switch word {
					case "end":
						p.say(`["oob",["S","-",true]]`)
					case "answer":
						p.say(resolve(u, `"dead"`))
					case "forget":
						p.say(fmt.Sprintf(`["f",%s]`, u.AppendJSON(nil)))
					}
				}
				p.untilGone()
			})
			s := introduce(t, c)
			if err := s.Die(t.Context()); err != nil {
				t.Error(err)
			}
			<-s.Done()
		})
	}
	c := against(t, ClientOptions{}, func(p *peer) {
		p.welcome()
		p.say(fmt.Sprintf(`["e",%q,{"code":"BUSY"}]`, p.next(Call, "die").ID))
		p.untilGone()
	})
	var rejected *RejectedError
	if s := introduce(t, c); !errors.As(s.Die(t.Context()), &rejected) || s.Err() != nil {
		t.Error("a rejected die ended the session")
	}
}

// An answer that never comes costs the caller its patience and nothing else.
func TestAnswerNeverComes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	c := against(t, ClientOptions{}, func(p *peer) {
		p.welcome()
		late := p.next(Call, "bid")
		cancel()
		<-gone
		p.say(resolve(late, `"late"`), notify(late, `"late"`))
		p.say(resolve(p.next(Call, "bid"), `"in time"`))
		p.untilGone()
	})
	s := introduce(t, c)
	if _, err := s.Call(ctx, Protocol, "bid"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := s.Call(ctx, Protocol, "never sent"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	close(gone)
	if value, err := s.Call(t.Context(), Protocol, "bid"); err != nil || string(value) != `"in time"` {
		t.Errorf("got %s, %v", value, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls) != 0 || len(s.calls) != 0 {
		t.Errorf("%d calls are left", len(c.calls))
	}
}

func TestOnlySafeTargets(t *testing.T) {
	c := against(t, ClientOptions{}, func(p *peer) { p.welcome(); p.untilGone() })
	s := introduce(t, c)
	for _, target := range []string{"needs", "", "services"} {
		if _, err := s.Call(t.Context(), target, "spawn"); err == nil {
			t.Errorf("called %q", target)
		}
	}
	if _, err := s.Call(t.Context(), Business, "x", func() {}); err == nil {
		t.Error("sent an argument without a JSON form")
	}
}

func TestCallsInFlight(t *testing.T) {
	c := against(t, ClientOptions{Limits: Limits{InFlight: 2}}, func(p *peer) { p.welcome(); p.untilGone() })
	s := introduce(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := s.Call(ctx, Business, "wait")
			results <- err
		}()
	}
	if err := <-results; !errors.Is(err, ErrBusy) {
		t.Errorf("one call too many: %v", err)
	}
	cancel()
	for range 2 {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("waiting call: %v", err)
		}
	}
}

func TestQuery(t *testing.T) {
	c := against(t, ClientOptions{}, func(p *peer) {
		p.welcome()
		u := p.next(Call, "query")
		if argsOf(u) != `[{"continuous":true}]` {
			t.Errorf("arguments %s", argsOf(u))
		}
		p.say(notify(u, `["i","Q"]`), notify(u, `["rb","R"]`))
		p.say(notify(u, `["re","R"]`), resolve(u, `true`), notify(u, `["late"]`))
		p.untilGone()
	})
	s := introduce(t, c)
	var items []string
	if err := s.Query(t.Context(), map[string]bool{"continuous": true}, func(item json.RawMessage) {
		items = append(items, string(item))
	}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{`["i","Q"]`, `["rb","R"]`, `["re","R"]`}, items); diff != "" {
		t.Error(diff)
	}
}

// When nobody listens any more the LAN manager is told, and item does not run
// behind the caller's back.
func TestQueryIsClosed(t *testing.T) {
	closed := make(chan struct{})
	c := against(t, ClientOptions{}, func(p *peer) {
		p.welcome()
		u := p.next(Call, "query")
		p.say(notify(u, `["i","Q\""]`), notify(u, `["rb","R"]`), notify(u, `["re","R"]`))
		if argsOf(p.next(Call, "closeQuery")) != `["Q\""]` {
			t.Error("another query was closed")
		}
		p.say(notify(u, `["c",{}]`))
		close(closed)
		p.untilGone()
	})
	s := introduce(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	count := 0
	err := s.Query(ctx, nil, func(json.RawMessage) {
		if count++; count == 2 {
			cancel()
			<-ctx.Done()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	after := count // no race: item does not run
	<-closed
	if after < 2 || count != after {
		t.Errorf("%d items, %d when Query returned", count, after)
	}
}

func TestServerPings(t *testing.T) {
	c := against(t, ClientOptions{}, func(p *peer) {
		p.welcome()
		call := p.next(Call, "go")
		p.say(`["?",1736001.50]`, `["!",7]`)
		if u := p.next(Pong, ""); string(u.Value) != `1736001.50` {
			t.Errorf("pong %s", u.Value)
		}
		p.say(resolve(call, `1`))
		p.untilGone()
	})
	if _, err := introduce(t, c).Call(t.Context(), Business, "go"); err != nil {
		t.Error(err)
	}
}

// Rubbish changes nothing.
func TestRubbish(t *testing.T) {
	c := against(t, ClientOptions{}, func(p *peer) {
		p.say(`rubbish`, `{"a":1}`, `[]`, `5`, `["r"]`, `["f",5]`, `["f",["x",["S",null]]]`, `["~",0,"x"]`,
			`["r","99",1]`, `["e","99",1]`, `["n","99",1]`, strings.Repeat("[", 1000))
		flood := `["oob",["unknown","s",{"p":["x"],"o":"s","d":1}]]`
		for range 3 {
			var units []string
			for range 1000 {
				units = append(units, flood)
			}
			p.say(units...)
		}
		p.say(`["oob",["S","s",{"p":["x"],"o":"s","d":"` + strings.Repeat("x", stateBytes) + `"}]]`)
		p.welcome()
		p.say(`{"err":{}}`)
		for i := range 2 * stateCount {
			p.say(fmt.Sprintf(`["oob",["S","s",{"p":["x%d"],"o":"s","d":%d}]]`, i, i))
		}
		p.say(`["oob",["S","s",{"p":["name"],"o":"s","d":"still"}]]`)
		p.say(resolve(p.next(Call, "go"), `1`))
		p.untilGone()
	})
	s := introduce(t, c)
	if _, err := s.Call(t.Context(), Business, "go"); err != nil {
		t.Error(err)
	}
	if name, _ := s.State("name"); string(name) != `"still"` {
		t.Errorf("name %s", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.early) > earlyUnits || len(s.states) > stateCount {
		t.Errorf("%d early units, %d states", len(c.early), len(s.states))
	}
}

// A thousand needs at once.
func TestManySubsAtOnce(t *testing.T) {
	const needs = 1000
	c := against(t, ClientOptions{}, func(p *peer) {
		p.welcome()
		for bids := 0; bids < needs; {
			var replies []string
			for _, u := range p.frame() {
				switch u.Method {
				case "subConnect":
					replies = append(replies, resolve(u, fmt.Sprintf(`{"introduce":{"session":"N%s"}}`, u.ID)))
				case "bid":
					bids++
					fallthrough
				default:
					replies = append(replies, resolve(u, `{"c":true}`))
				}
			}
			p.say(replies...)
		}
		p.untilGone()
	})
	s := introduce(t, c)
	var bidders sync.WaitGroup
	for range needs {
		bidders.Go(func() {
			sub, err := s.Sub(t.Context(), "P", nil)
			if err == nil {
				_, err = sub.Call(t.Context(), Protocol, "bid", struct{}{})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	bidders.Wait()
}

// Whatever a server says, in whatever order, every call has one end.
func TestAnyReplies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		conn := newFakeConn()
		c := NewClient(conn, ClientOptions{})
		ctx, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		all.Go(func() { _ = c.Run(ctx) })
		for range 3 {
			all.Go(func() {
				s, err := c.Introduce(ctx, nil)
				if err != nil {
					return
				}
				all.Go(func() { _ = s.Query(ctx, nil, func(json.RawMessage) {}) })
				if sub, err := s.Sub(ctx, "x", nil); err == nil {
					_, _ = sub.Call(ctx, Protocol, "bid")
					_ = sub.Die(ctx)
				}
				_ = s.Die(ctx)
			})
		}
		id := rapid.SampledFrom([]string{"1", "2", "3", "4", "5", "6", "7", "8"})
		session := rapid.SampledFrom([]string{"A", "B", "C"})
		for range rapid.IntRange(0, 40).Draw(t, "units") {
			i, s := id.Draw(t, "id"), session.Draw(t, "session")
			conn.replies <- rapid.SampledFrom([]string{
				fmt.Sprintf(`["r",%q,{"session":%q}]`, i, s),
				fmt.Sprintf(`["r",%q,{"introduce":{"session":%q}}]`, i, s),
				fmt.Sprintf(`["e",%q,{"code":"NO"}]`, i),
				fmt.Sprintf(`["n",%q,["i","Q"]]`, i),
				fmt.Sprintf(`["f",[%q,[%q,null]]]`, i, s),
				fmt.Sprintf(`["oob",[%q,"-",true]]`, s),
				fmt.Sprintf(`["oob",[%q,"s",{"p":["name"],"o":"s","d":1}]]`, s),
				`{"err":{}}`, `["?",1]`, `nonsense`,
			}).Draw(t, "reply")
		}
		if rapid.Bool().Draw(t, "cancelled") {
			cancel()
		} else {
			close(conn.replies)
		}
		<-c.Lost()
		cancel()
		all.Wait()
		if len(c.calls) != 0 || len(c.sessions) != 0 {
			t.Fatalf("%d calls and %d sessions are left", len(c.calls), len(c.sessions))
		}
	})
}
