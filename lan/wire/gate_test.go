package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// room is a user for the tests: it says what happens to it, and what it is
// asked decides what it does.
type room struct {
	name    string
	log     *[]string
	session *ServerSession
	kept    []*Request
}

func (u *room) note(format string, args ...any) {
	*u.log = append(*u.log, fmt.Sprintf(format, args...))
}

func (u *room) Opened(s *ServerSession) {
	u.session = s
	u.note("%s opened", u.name)
	s.State("name", u.name)
}

func (u *room) Closed() { u.note("%s closed", u.name) }

func (u *room) Call(r *Request) {
	switch r.Method {
	case ".echo":
		r.Resolve(r.Arg(0))
	case ".count":
		r.Notify(json.RawMessage(`1`))
		r.Notify(json.RawMessage(`2`))
		r.Resolve(nil)
		r.Notify(json.RawMessage(`3`))
		r.Resolve("twice")
	case ".text":
		if text, ok := r.String(0, "Text"); ok {
			r.Resolve("text " + text)
		}
	case ".object":
		if o, ok := r.Object(0, "Thing"); ok {
			r.Resolve(len(o))
		}
	case ".list":
		if l, ok := r.Strings(0, "List"); ok {
			r.Resolve(l)
		}
	case ".keep":
		u.kept = append(u.kept, r)
	case ".free":
		for _, r := range u.kept {
			r.Resolve("freed")
		}
		r.Resolve(len(u.kept))
	case ".leave":
		r.Session().End()
		r.Resolve("too late")
	case "!subConnect":
		name, _ := r.String(0, "Name")
		r.Reserve(Grant{Role: "user", ModuleName: "sub", User: &room{name: name, log: u.log}})
	default:
		r.Unknown()
	}
}

// gated is a gate with one channel, fed and read as text.
type gated struct {
	t       *testing.T
	channel *Channel
	sent    []string
	log     []string
	rooms   []*room
}

func newGated(t *testing.T, l Limits) *gated {
	g := &gated{t: t}
	gate := NewGate(func(c *Channel, credentials json.RawMessage) (Grant, error) {
		switch string(credentials) {
		case `{"bad":1}`:
			return Grant{}, &RejectedError{Code: "BAD", Message: "no good"}
		case `{"bad":2}`:
			return Grant{}, errors.New("plain")
		}
		u := &room{name: c.Peer().String(), log: &g.log}
		g.rooms = append(g.rooms, u)
		return Grant{Role: "user", ModuleName: "main", User: u}, nil
	}, l)
	gate.prefix = ""
	g.channel = gate.Open(netip.MustParseAddr("127.0.0.7"), func(u Unit) {
		g.sent = append(g.sent, string(u.AppendJSON(nil)))
	})
	return g
}

// say feeds units and returns what came back.
func (g *gated) say(texts ...string) []string {
	g.t.Helper()
	for _, text := range texts {
		u, err := ParseRequest([]byte(text), Limits{})
		if errors.Is(err, ErrNotUnit) {
			u, err = Unit{Kind: Forget, Value: []byte(text)}, nil
		}
		if err != nil {
			g.t.Fatalf("%s: %v", text, err)
		}
		g.channel.Receive(u)
	}
	sent := g.sent
	g.sent = nil
	return sent
}

func (g *gated) want(sent []string, want ...string) {
	g.t.Helper()
	if diff := cmp.Diff(want, sent); diff != "" {
		g.t.Errorf("answers (-want +got):\n%s", diff)
	}
}

const introduceS = `["q1",["S",{"ip":1}]]`

func TestGateIntroductions(t *testing.T) {
	state := func(session string) string {
		return `["oob",["` + session + `","s",{"p":["name"],"o":"s","d":"127.0.0.7"}]]`
	}
	for _, c := range []struct {
		name, say string
		want      []string
	}{
		{"an own id", `["q",[null,{"ip":1}]]`, []string{state("1"), `["r","q",{"session":"1","role":"user","modulename":"main"}]`}},
		{"a chosen id", `["q",["S",{"ip":1}]]`, []string{state("S"), `["r","q",{"session":"S","role":"user","modulename":"main"}]`}},
		{"introduce and call in one", `["q",[null,{"ip":1}],[".",["echo",[[7]]]]]`, []string{state("1"), `["r","q",[7]]`}},
		{"refused", `["q",[null,{"bad":1}]]`, []string{`["e","q",{"code":"BAD","message":"no good"}]`, `{"err":{}}`}},
		{"refused without a code", `["q",[null,{"bad":2}]]`, []string{`["e","q",{"code":"REFUSED","message":"plain"}]`, `{"err":{}}`}},
		{"nothing to go by", `["q",[null,null]]`, []string{`["f",["q",[null,null]]]`}},
		{"unknown session", `["q",["no",null]]`, []string{`["f",["q",["no",null]]]`}},
		{"call on an unknown session", `["q",["no",null],["!",["die",[]]]]`, []string{`["f",["q",["no",null],["!",["die",[]]]]]`}},
		{"an object", `{"a":1}`, []string{`["f",{"a":1}]`}},
		{"an empty array", `[]`, []string{`["f",[]]`}},
		{"a number", `5`, []string{`["f",5]`}},
		{"ping", `["?",12.5e3]`, []string{`["!",12.5e3]`}},
		{"pong", `["!",1]`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGated(t, Limits{})
			g.want(g.say(c.say), c.want...)
		})
	}
}

func TestGateTooLongSessionID(t *testing.T) {
	g := newGated(t, Limits{})
	long := make([]byte, 256)
	for i := range long {
		long[i] = 'x'
	}
	g.want(g.say(`["q",["`+string(long)+`",{"ip":1}]]`),
		`["e","q",{"code":"SESSION_ID_TOO_LONG","message":"a session id has at most 255 bytes"}]`, `{"err":{}}`)
	if diff := cmp.Diff([]string{"127.0.0.7 closed"}, g.log); diff != "" {
		t.Error(diff)
	}
}

func TestGateCalls(t *testing.T) {
	mistake := func(code string) string { return `["e","q",{"code":"` + code + `","message":""}]` }
	for _, c := range []struct {
		name, call string
		want       []string
	}{
		{"notify and resolve", `[".",["count",[]]]`, []string{`["n","q",1]`, `["n","q",2]`, `["r","q",null]`}},
		{"one argument without an array", `[".",["text","x"]]`, []string{`["r","q","text x"]`}},
		{"arguments null", `[".",["text",null]]`, []string{`["r","q","text "]`}},
		{"no arguments", `[".",["text"]]`, []string{`["r","q","text "]`}},
		{"too many arguments", `[".",["text",["x",1,2]]]`, []string{`["r","q","text x"]`}},
		{"a number for a string", `[".",["text",[5]]]`, []string{mistake("Text:  is not of a type(s) string")}},
		{"null for a string", `[".",["text",[null]]]`, []string{mistake("Text:  is not of a type(s) string")}},
		{"object", `[".",["object",[{"a":1}]]]`, []string{`["r","q",1]`}},
		{"null for an object", `[".",["object",[null]]]`, []string{mistake("Thing:  is not of a type(s) object")}},
		{"list", `[".",["list",[["a","b"]]]]`, []string{`["r","q",["a","b"]]`}},
		{"a list of other things", `[".",["list",[["a",1]]]]`, []string{mistake("List:  is not of a type(s) array")}},
		{"unknown business method", `[".",["nosuch",[1]]]`, []string{`["e","q",{"code":"METHOD_DOES_NOT_EXIST","message":"Method nosuch does not exist"}]`}},
		{"unknown session method", `["!",["nosuch",[]]]`, []string{`["e","q",{"code":"METHOD_DOES_NOT_EXIST","message":"Method nosuch does not exist"}]`}},
		{"a subservice as target", `["needs",["spawn",[{}]]]`, []string{`["e","q",{"code":"METHOD_DOES_NOT_EXIST","message":"Method spawn does not exist"}]`}},
		{"confirmReservation", `["!",["confirmReservation",[]]]`, []string{`["r","q","ok"]`}},
		{"die", `["!",["die",[]]]`, []string{`["oob",["S","-",true]]`, `["r","q","dead"]`}},
		{"ended by its user", `[".",["leave",[]]]`, []string{`["oob",["S","-",true]]`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGated(t, Limits{})
			g.say(introduceS)
			g.want(g.say(`["q",["S",null],`+c.call+`]`), c.want...)
		})
	}
}

func TestGateSubSessions(t *testing.T) {
	g := newGated(t, Limits{})
	g.say(introduceS)
	g.want(g.say(`["q2",["S",null],["!",["subConnect",["a",{}]]]]`),
		`["r","q2",{"introduce":{"session":"1","modulename":"sub","role":"user"}}]`)
	g.want(g.say(`["q3",["1",null]]`, `["q4",["1",null],["!",["confirmReservation",[]]]]`, `["q5",["1",null],[".",["text",["x"]]]]`),
		`["oob",["1","s",{"p":["name"],"o":"s","d":"a"}]]`,
		`["r","q3",{"session":"1","role":"user","modulename":"sub"}]`, `["r","q4","ok"]`, `["r","q5","text x"]`)

	g.say(`["q6",["S",null],["!",["subConnect",["b",{}]]]]`)
	g.want(g.say(`["q7",["2",null],[".",["text",["y"]]]]`), // the call itself opens it
		`["oob",["2","s",{"p":["name"],"o":"s","d":"b"}]]`, `["r","q7","text y"]`)

	g.want(g.say(`["q8",["S",null],["!",["die",[]]]]`), `["oob",["S","-",true]]`, `["r","q8","dead"]`)
	g.want(g.say(`["q9",["1",null],[".",["text",["z"]]]]`), `["r","q9","text z"]`) // lives on
	g.want(g.say(`["q10",["S",null],["!",["die",[]]]]`), `["f",["q10",["S",null],["!",["die",[]]]]]`)

	g.channel.Close()
	g.want(g.say(`["q11",["1",null],[".",["text",["z"]]]]`))
	slices.Sort(g.log)
	if diff := cmp.Diff([]string{"127.0.0.7 closed", "127.0.0.7 opened", "a closed", "a opened", "b closed", "b opened"}, g.log); diff != "" {
		t.Error(diff)
	}
}

// What a session's user still holds when the session ends is void, and counts
// no longer.
func TestGateRequestsEndWithTheirSession(t *testing.T) {
	g := newGated(t, Limits{InFlight: 3})
	g.say(introduceS)
	g.want(g.say(`["k1",["S",null],[".",["keep",[]]]]`, `["k2",["S",null],[".",["keep",[]]]]`, `["k3",["S",null],[".",["keep",[]]]]`))
	g.want(g.say(`["k4",["S",null],[".",["keep",[]]]]`),
		`["e","k4",{"code":"TOO_MANY_CALLS","message":"too many calls of this connection wait for their answer"}]`)
	kept := g.rooms[0].kept
	g.rooms[0].session.End()
	g.rooms[0].session.End()
	for _, r := range kept {
		r.Resolve("freed")
		r.Reserve(Grant{User: &room{name: "late", log: &g.log}})
	}
	g.want(g.say(), `["oob",["S","-",true]]`)
	if g.channel.inFlight != 0 {
		t.Errorf("%d requests in flight, want none", g.channel.inFlight)
	}
	g.say(introduceS)
	g.want(g.say(`["q",["S",null],[".",["free",[]]]]`), `["r","q",0]`)
}

// A peer may name its session like one that the gate would have made.
func TestGateChosenIDCollides(t *testing.T) {
	g := newGated(t, Limits{})
	g.say(`["q1",["1",{"ip":1}]]`)
	g.want(g.say(`["q2",[null,{"ip":1}]]`)[1:], `["r","q2",{"session":"2","role":"user","modulename":"main"}]`)
}

// Whatever comes in, nothing panics and what goes out are units of a server.
func FuzzGate(f *testing.F) {
	f.Add([]byte(introduceS + "\x00" + `["q",["S",null],["!",["subConnect",["a",{}]]]]` + "\x00" + `["q",["1",null],["!",["die",[]]]]`))
	f.Add([]byte(`["q",["S",null],[".",["keep",[]]]]` + "\x00" + `["q",["S",null],[".",["free",[]]]]`))
	f.Add([]byte(`{"a":1}` + "\x00" + `["?",1]` + "\x00" + `[".",[]]`))
	f.Fuzz(func(t *testing.T, frame []byte) {
		g := newGated(t, Limits{InFlight: 4})
		g.say(introduceS)
		for _, text := range unjoin(frame) {
			u, err := ParseRequest(text, Limits{Depth: 8})
			if err == nil {
				g.channel.Receive(u)
			}
		}
		for _, text := range g.sent {
			if _, err := ParseReply([]byte(text), Limits{}); err != nil {
				t.Errorf("sent %s: %v", text, err)
			}
		}
		g.channel.Close()
		if g.channel.inFlight != 0 || len(g.channel.sessions) != 0 {
			t.Errorf("%d requests and %d sessions left", g.channel.inFlight, len(g.channel.sessions))
		}
	})
}

func TestGateBoundsSessions(t *testing.T) {
	g := newGated(t, Limits{Sessions: 2})
	g.say(introduceS)
	g.say(`["q1",["T",{"ip":1}]]`)
	g.want(g.say(`["q2",["U",{"ip":1}]]`),
		`["e","q2",{"code":"TOO_MANY_SESSIONS","message":"this connection has too many sessions; end some"}]`, `{"err":{}}`)
	g.want(g.say(`["q3",["S",null],["!",["subConnect",["a",{}]]]]`),
		`["e","q3",{"code":"TOO_MANY_SESSIONS","message":"this connection has too many sessions; end some"}]`)
	g.say(`["q4",["T",null],["!",["die",[]]]]`)
	if sent := g.say(`["q5",["U",{"ip":1}]]`); !strings.HasPrefix(sent[len(sent)-1], `["r","q5"`) {
		t.Errorf("with room again: %s", sent)
	}
}
