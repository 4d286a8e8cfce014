package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/transcript"
)

// A client that does what the recorded client did gets from a peer that says
// what the recorded LAN manager said what that client got. So it is in every
// envelope, whichever the recording was made in.
func TestReplay(t *testing.T) { replays(t, replay) }

// A gate whose users answer as the recorded LAN manager did answers as that did.
func TestReplayGate(t *testing.T) { replays(t, replayGate) }

// replays runs a replay for every connection that was recorded, in every
// envelope.
func replays(t *testing.T, replay func(*testing.T, envelope, []transcript.Line)) {
	for _, name := range transcripts {
		connections := make(map[int][]transcript.Line)
		for _, line := range recorded(t, name) {
			connections[line.Connection] = append(connections[line.Connection], line)
		}
		delete(connections, 0)
		for n, lines := range connections {
			for _, e := range envelopes {
				t.Run(fmt.Sprintf("%s/%d/%s", name, n, e.name), func(t *testing.T) {
					replay(t, e, slices.DeleteFunc(slices.Clone(lines), func(line transcript.Line) bool {
						return e.onlyJSON && !json.Valid([]byte(line.Text))
					}))
				})
			}
		}
	}
}

// envelope is a way to carry units over a real network.
type envelope struct {
	name     string
	onlyJSON bool // a unit that is no JSON can not travel
	listen   func(t testing.TB, l Limits, handle func(Conn)) (url string)
	dial     func(ctx context.Context, url string, o DialOptions) (Conn, error)
}

var envelopes = []envelope{
	{"WebSocket", false, listen, Dial},
	{"SignalR", true, listenSignalR, DialSignalR},
}

func (e envelope) connect(t *testing.T, url string, o DialOptions) Conn {
	t.Helper()
	conn, err := e.dial(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// recordedPeer answers a client with what the LAN manager sent between the
// recorded unit that is the same and the next one.
type recordedPeer struct {
	t      *testing.T
	lines  []transcript.Line
	causes []int
	used   map[int]bool      // indexes of lines
	ids    map[string]string // of the recorded client -> of ours
	heard  chan string       // recorded ids, or texts, as they come
	ended  chan struct{}     // closed when serve has returned
}

func (p *recordedPeer) serve(conn Conn) {
	defer close(p.ended)
	for {
		units, err := conn.Read()
		if err != nil {
			return
		}
		for _, unit := range units {
			i, ok := p.find(string(unit))
			if u, err := ParseRequest(unit, Limits{}); !ok && err == nil && (u.Kind == Ping || u.Kind == Pong) {
				continue // on a slow machine
			}
			if !ok {
				p.t.Errorf("the recorded client never sent %s", unit)
				return
			}
			for _, reply := range p.reaction(i) {
				if err := conn.Write([][]byte{reply}); err != nil {
					return
				}
			}
			p.heard <- p.lines[i].ID
		}
	}
}

// find looks for the recorded unit that differs from text in nothing but the
// id.
func (p *recordedPeer) find(text string) (int, bool) {
	u, err := ParseRequest([]byte(text), Limits{})
	for i, line := range p.lines {
		if line.Kind != transcript.FromClient || p.used[i] {
			continue
		}
		if err != nil {
			if line.Text != text {
				continue
			}
		} else {
			was, err := ParseRequest([]byte(line.Text), Limits{})
			was.ID = u.ID
			if err != nil || was.Session != u.Session || was.Method != u.Method || cmp.Diff(decoded(p.t, was.AppendJSON(nil)), decoded(p.t, u.AppendJSON(nil))) != "" {
				continue
			}
			p.ids[line.ID] = u.ID
		}
		p.used[i] = true
		return i, true
	}
	return 0, false
}

// reaction is what the LAN manager said on a unit.
func (p *recordedPeer) reaction(i int) (replies [][]byte) {
	for j, line := range p.lines {
		if line.Kind != transcript.FromServer || p.causes[j] != i {
			continue
		}
		if line.ID != "" {
			id, ok := p.ids[line.ID]
			if !ok {
				p.t.Errorf("line %d answers %s, which our client has not sent", line.Number, line.ID)
			}
			line.Text = strings.Replace(line.Text, `"`+line.ID+`"`, `"`+id+`"`, 1)
		}
		replies = append(replies, []byte(line.Text))
	}
	return replies
}

// causes says on which unit of the client a line of the server is due: on the
// last one before it. Only what is about the attachment of a session waits for
// that, since our client attaches later than the recorded one.
func causes(lines []transcript.Line) []int {
	causes := make([]int, len(lines))
	attached := make(map[string]int) // by the id of the unit, and of the session
	last := 0
	for i, line := range lines {
		causes[i] = last
		switch line.Kind {
		case transcript.FromClient:
			u, err := ParseRequest([]byte(line.Text), Limits{})
			if err == nil && attaches(u) {
				attached[u.ID] = i
				if u.Kind == Introduce {
					attached[u.Session] = i
				}
			} else {
				last = i
			}
		case transcript.FromServer:
			name := line.ID
			if u, err := ParseReply([]byte(line.Text), Limits{}); err == nil && u.Channel == StateChannel {
				name = u.Session
			}
			if by, ok := attached[name]; ok {
				causes[i] = by
			}
		}
	}
	return causes
}

// attaches tells whether a unit is one that a client sends by itself.
func attaches(u Unit) bool {
	return u.Kind == Introduce && u.Session != "" && u.Credentials == nil || u.Method == "confirmReservation"
}

// recordedClient does what the recorded client did.
type recordedClient struct {
	*Client
	t       *testing.T
	acts    []act
	waiting sync.WaitGroup

	mu       sync.Mutex
	sessions map[string]*Session
}

// act is a request of the recorded client that has been repeated.
type act struct {
	done     chan struct{}
	answered int // line
}

func (c *recordedClient) session(id string) *Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sessions[id]
}

func (c *recordedClient) keep(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions[s.ID()] = s
}

func replay(t *testing.T, e envelope, lines []transcript.Line) {
	peer := &recordedPeer{
		t: t, lines: lines, causes: causes(lines), used: make(map[int]bool), ids: make(map[string]string),
		heard: make(chan string, 1000), ended: make(chan struct{}),
	}
	url := e.listen(t, Limits{}, peer.serve)
	c := &recordedClient{
		Client:   NewClient(e.connect(t, url, DialOptions{}), ClientOptions{}),
		t:        t,
		sessions: make(map[string]*Session),
	}
	stop := run(t, c.Client)
	for i, line := range lines {
		if line.Kind != transcript.FromClient {
			continue
		}
		c.await(line)
		if !c.repeat(t.Context(), line, answerTo(line, lines[i+1:])) {
			continue // the client does it by itself, when it is time
		}
		for id := range peer.heard {
			if id == line.ID {
				break
			}
		}
	}
	c.await(transcript.Line{Number: math.MaxInt})
	stop() // so that what was never answered ends, too
	c.waiting.Wait()
	<-peer.ended
	for i, line := range lines {
		u, err := ParseRequest([]byte(line.Text), Limits{})
		own := u.Kind == Ping || u.Kind == Pong || attaches(u)
		if line.Kind == transcript.FromClient && !peer.used[i] && (err != nil || !own) {
			t.Errorf("line %d was not sent: %s", line.Number, line.Text)
		}
	}
}

// run runs the client until stop is called or the test ends.
func run(t *testing.T, c *Client) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err == nil {
			t.Error("Run ended without a cause")
		}
	})
	t.Cleanup(stop)
	return stop
}

// recordedAnswer is what the recorded client was answered, and where.
type recordedAnswer struct {
	Unit
	line int // 0: never
}

func answerTo(request transcript.Line, later []transcript.Line) recordedAnswer {
	alone := true // no other request could be refused
	for _, line := range later {
		switch line.Kind {
		case transcript.FromClient:
			alone = false
		case transcript.FromServer:
			u, _ := ParseReply([]byte(line.Text), Limits{})
			refusal := u.Kind == AuthFailure && alone
			if refusal || line.ID == request.ID && request.ID != "" && u.Kind != Notify {
				return recordedAnswer{u, line.Number}
			}
		}
	}
	return recordedAnswer{}
}

// await waits for the answers that the recorded client had before it went on.
func (c *recordedClient) await(line transcript.Line) {
	c.acts = slices.DeleteFunc(c.acts, func(a act) bool {
		if a.answered == 0 || a.answered > line.Number {
			return false
		}
		<-a.done
		return true
	})
}

// repeat does what the recorded client did with one unit, and checks that it
// ends with the recorded answer.
func (c *recordedClient) repeat(ctx context.Context, line transcript.Line, answer recordedAnswer) (sent bool) {
	request, err := ParseRequest([]byte(line.Text), Limits{})
	var do func() (json.RawMessage, error)
	s := c.session(request.Session)
	switch {
	case err != nil: // what no client of ours would send
		c.Client.mu.Lock()
		c.queue = append(c.queue, []byte(line.Text))
		c.enqueue(Unit{})
		c.Client.mu.Unlock()
		return true
	case request.Kind == Ping || request.Kind == Pong || attaches(request) && s != nil:
		return false
	case request.Kind == Introduce && request.Session == "":
		do = func() (json.RawMessage, error) { return c.introduce(ctx, request) }
	case s == nil: // a session of its own naming, or of none
		do = func() (json.RawMessage, error) {
			return c.ask(ctx, newCall(c.sessionNamed(request)), request)
		}
	default:
		do = func() (json.RawMessage, error) { return c.call(ctx, s, request) }
	}
	done := make(chan struct{})
	c.waiting.Go(func() {
		defer close(done)
		value, err := do()
		c.check(line, answer.Unit, value, err)
	})
	c.acts = append(c.acts, act{done, answer.line})
	return true
}

func (c *recordedClient) sessionNamed(request Unit) *Session {
	if request.Credentials != nil {
		return nil
	}
	s := &Session{client: c.Client, id: request.Session, done: make(chan struct{})}
	c.Client.mu.Lock()
	c.Client.sessions[s.id] = s
	c.Client.mu.Unlock()
	return s
}

func (c *recordedClient) introduce(ctx context.Context, request Unit) (json.RawMessage, error) {
	s, err := c.Introduce(ctx, request.Credentials)
	if err != nil {
		return nil, err
	}
	if name, ok := s.State("name"); !ok || len(name) < 3 {
		c.t.Errorf("session %s does not know its name on return: %s", s.ID(), name)
	}
	c.keep(s)
	return fmt.Appendf(nil, `{"session":%q,"role":%q,"modulename":%q}`, s.ID(), s.Role(), s.ModuleName()), nil
}

func (c *recordedClient) call(ctx context.Context, s *Session, request Unit) (json.RawMessage, error) {
	var args []any
	for _, arg := range request.Args {
		args = append(args, arg)
	}
	switch request.Method {
	case "subConnect":
		var name string
		if err := json.Unmarshal(request.Args[0], &name); err != nil {
			return nil, err
		}
		sub, err := s.Sub(ctx, name, args[1])
		if err != nil {
			return nil, err
		}
		c.keep(sub)
		return fmt.Appendf(nil, `{"introduce":{"session":%q,"modulename":%q,"role":%q}}`, sub.ID(), sub.ModuleName(), sub.Role()), nil
	case "query":
		err := s.Query(ctx, args[0], func(json.RawMessage) {})
		return json.RawMessage(`true`), err
	case "die":
		err := s.Die(ctx)
		if !errors.Is(s.Err(), ErrEnded) && !errors.Is(s.Err(), ErrForgotten) {
			c.t.Errorf("session %s is dead, but its error is %v", s.ID(), s.Err())
		}
		return json.RawMessage(`"dead"`), err
	}
	if request.Args == nil { // null arguments; a Call sends none instead
		return c.ask(ctx, newCall(s), request)
	}
	return s.Call(ctx, request.Target, request.Method, args...)
}

func (c *recordedClient) check(line transcript.Line, answer Unit, value json.RawMessage, err error) {
	request, _ := ParseRequest([]byte(line.Text), Limits{})
	var rejected *RejectedError
	good := false
	switch answer.Kind {
	case Resolve:
		good = err == nil && cmp.Equal(decoded(c.t, answer.Value), decoded(c.t, value))
	case Reject:
		good = errors.As(err, &rejected) && *rejected == RejectedError{answer.Code, answer.Message}
	case Forget:
		good = errors.Is(err, ErrForgotten) || request.Method == "die" && err == nil
	case AuthFailure:
		good = errors.Is(err, ErrRefused)
	default: // it was never answered
		good = errors.Is(err, ErrLost) || errors.Is(err, ErrEnded)
	}
	if !good {
		c.t.Errorf("line %d: %s: got %s, error %v, recorded %s %s%s", line.Number, line.Text, value, err, answer.Kind, answer.Value, answer.Code)
	}
}
