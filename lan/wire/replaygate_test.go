package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/transcript"
)

// recordedGate is a gate that follows a recording, line by line. Its sessions
// travel under the ids that they had there.
type recordedGate struct {
	t        *testing.T
	conn     Conn
	lines    []transcript.Line
	now      int // index of the line
	gate     *Gate
	channel  *Channel
	heard    [][]byte // and not yet looked at
	said     []Unit   // and not yet sent
	ids      []string // of sessions: recorded, ours, recorded, ours ...
	sessions map[string]*ServerSession
	requests map[string]*Request
}

func (g *recordedGate) serve(conn Conn) {
	g.conn = conn
	g.gate = NewGate(g.introduce, Limits{})
	g.channel = g.gate.Open(netip.MustParseAddr("127.0.0.1"), func(u Unit) { g.said = append(g.said, u) })
	defer g.channel.Close()
	for i, line := range g.lines {
		g.now = i
		switch line.Kind {
		case transcript.FromClient:
			if !g.hear() {
				return
			}
		case transcript.FromServer:
			g.play(line)
		}
		if err := g.flush(); err != nil {
			g.t.Error(err)
			return
		}
	}
	for g.hear() { // so that nothing is lost because the connection ends early
	}
}

// hear takes the next unit of the client.
func (g *recordedGate) hear() bool {
	for len(g.heard) == 0 {
		var err error
		if g.heard, err = g.conn.Read(); err != nil {
			return false
		}
	}
	recorded := string(g.heard[0])
	g.heard = g.heard[1:]
	text := []byte(strings.NewReplacer(g.ids...).Replace(recorded))
	switch u, err := ParseRequest(text, Limits{}); {
	case err == nil:
		if u.Method == "die" && answerTo(g.lines[g.now], g.lines[g.now+1:]).Kind == Forget {
			g.channel.sessions[u.Session].End() // the need was served a moment before
		}
		g.channel.Receive(u)
	case errors.Is(err, ErrNotUnit):
		g.channel.Receive(Unit{Kind: Forget, Value: text})
	}
	return true
}

func (g *recordedGate) flush() error {
	back := slices.Clone(g.ids)
	slices.Reverse(back)
	var texts [][]byte
	for _, u := range g.said {
		texts = append(texts, []byte(strings.NewReplacer(back...).Replace(string(u.AppendJSON(nil)))))
	}
	g.said = nil
	return g.conn.Write(texts)
}

type introducedAs struct {
	Session    string        `json:"session"`
	Role       string        `json:"role"`
	ModuleName string        `json:"modulename"`
	Introduce  *introducedAs `json:"introduce"`
}

func (g *recordedGate) introduce(*Channel, json.RawMessage) (Grant, error) {
	answer := answerTo(g.lines[g.now], g.lines[g.now+1:])
	if answer.Kind == AuthFailure {
		return Grant{}, errors.New("as it was")
	}
	var as introducedAs
	_ = json.Unmarshal(answer.Value, &as)
	if as.Session == "" { // it was introduced with a call, whose answer does not name it
		for _, line := range g.lines[g.now:] {
			if u, err := ParseReply([]byte(line.Text), Limits{}); err == nil && u.Kind == OutOfBand {
				as.Session = u.Session
				break
			}
		}
	}
	return g.grant(as), nil
}

func (g *recordedGate) grant(as introducedAs) Grant {
	return Grant{as.Role, as.ModuleName, &recordedUser{g, as.Session}}
}

// recordedUser is behind the session that had the id in the recording.
type recordedUser struct {
	*recordedGate
	id string
}

func (u *recordedUser) name(s *ServerSession) {
	if u.id != s.id {
		u.ids = append(u.ids, u.id, s.id)
	}
}

func (u *recordedUser) Opened(s *ServerSession) {
	u.sessions[u.id] = s
	if !slices.Contains(u.ids, s.id) {
		u.name(s)
	}
	for _, line := range u.lines {
		oob, err := ParseReply([]byte(line.Text), Limits{})
		if err != nil || line.Kind != transcript.FromServer || oob.Session != u.id || oob.Channel != StateChannel {
			continue
		}
		var state struct {
			Path  []string        `json:"p"`
			Value json.RawMessage `json:"d"`
		}
		if err := json.Unmarshal(oob.Value, &state); err != nil {
			u.t.Error(err)
		}
		s.State(state.Path[0], state.Value)
	}
}

func (u *recordedUser) Call(r *Request) { u.requests[r.id] = r }
func (u *recordedUser) Closed()         {}

// play has the users say what is in a line. What gates say by themselves is not
// theirs to say.
func (g *recordedGate) play(line transcript.Line) {
	u, err := ParseReply([]byte(line.Text), Limits{})
	if err != nil {
		g.t.Errorf("line %d: %v", line.Number, err)
	}
	r := g.requests[u.ID]
	switch {
	case u.Kind == Ping: // of the envelope
		g.said = append(g.said, u)
	case u.Kind == OutOfBand && u.Channel == EndChannel:
		g.sessions[u.Session].End()
	case r == nil:
	case u.Kind == Notify:
		r.Notify(u.Value)
	case u.Kind == Reject:
		r.Reject(u.Code, u.Message)
	case u.Kind == Resolve:
		var as introducedAs
		if _ = json.Unmarshal(u.Value, &as); as.Introduce == nil {
			r.Resolve(u.Value)
		} else if s := r.Reserve(g.grant(*as.Introduce)); s != nil {
			s.grant.User.(*recordedUser).name(s)
		}
	}
}

// replayGate says what the client said, and waits for every answer before it
// goes on.
func replayGate(t *testing.T, e envelope, lines []transcript.Line) {
	url := e.listen(t, Limits{}, func(conn Conn) {
		g := &recordedGate{t: t, lines: lines, sessions: map[string]*ServerSession{}, requests: map[string]*Request{}}
		g.serve(conn)
	})
	conn := e.connect(t, url, DialOptions{})
	var heard [][]byte
	refused := 0
	for i, line := range lines {
		switch line.Kind {
		case transcript.FromClient:
			if err := conn.Write([][]byte{[]byte(line.Text)}); err != nil {
				t.Fatal(err)
			}
		case transcript.FromServer:
			if line.Text == `{"err":{}}` {
				refused++
			}
			if heard = expect(t, conn, heard, line); t.Failed() {
				t.Fatalf("stopped at line %d, entry %d", line.Number, i)
			}
		}
	}
	for _, text := range heard {
		switch u, err := ParseReply(text, Limits{}); {
		case err == nil && u.Kind == Ping: // of the envelope, on a slow machine
		case err == nil && u.Kind == Reject && u.Code == "REFUSED": // of a refusal, which the original does not give
			refused--
		default:
			t.Errorf("not in the recording: %s", text)
		}
	}
	if refused != 0 {
		t.Errorf("%d refusals more than reasons", refused)
	}
}

// expect reads until the recorded unit has come, and takes it out of what was
// heard. Units about the same call or session come in their order.
func expect(t *testing.T, conn Conn, heard [][]byte, line transcript.Line) [][]byte {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		for i, text := range heard {
			if subject(text) != subject([]byte(line.Text)) {
				continue
			}
			if diff := cmp.Diff(decoded(t, []byte(line.Text)), decoded(t, text)); diff != "" {
				t.Errorf("line %d: %s", line.Number, diff)
			}
			return slices.Delete(heard, i, i+1)
		}
		units, err := conn.Read()
		if err != nil {
			t.Fatalf("line %d did not come: %s: %v; there are %s", line.Number, line.Text, err, heard)
		}
		heard = append(heard, units...)
	}
}

// subject is what a unit is about.
func subject(text []byte) string {
	u, err := ParseReply(text, Limits{})
	if err != nil || u.Kind == Pong || u.Kind == Forget || u.Kind == AuthFailure {
		return u.Kind.String()
	}
	if u.Kind == Ping {
		return string(text)
	}
	return fmt.Sprint(u.Kind == OutOfBand, u.ID, u.Session)
}
