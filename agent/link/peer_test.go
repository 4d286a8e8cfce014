package link

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/allexgo/machine-agent/lan/wire"
)

// This file is the other end of the wire, written by hand after
// lan/PROTOCOL.md: it shares no code with lan/wire, so that a mistake there
// does not look right from both sides.

// frames is a connection of the peer. One goroutine reads.
type frames interface {
	read() (frame string, err error)
	write(frame string) error
	close()
}

// web is frames over a WebSocket.
type web struct{ *websocket.Conn }

func (w web) read() (string, error) {
	_, frame, err := w.ReadMessage()
	return string(frame), err
}

func (w web) write(frame string) error { return w.WriteMessage(websocket.TextMessage, []byte(frame)) }
func (w web) close()                   { w.Close() }

// listen has serve at every WebSocket that comes to a port of its own, and
// returns host:port. When the test ends it closes them all and waits.
func listen(t *testing.T, serve func(frames)) string {
	t.Helper()
	return door{}.listen(t, serve)
}

// door is what stands before a LAN manager.
type door struct {
	tls   *tls.Config                                       // nil: none
	admit func(w http.ResponseWriter, r *http.Request) bool // nil: everybody
}

func (d door) listen(t *testing.T, serve func(frames)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var (
		serving sync.WaitGroup
		mu      sync.Mutex
		open    []web
	)
	upgrader := websocket.Upgrader{EnableCompression: true} // as the real one
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.admit != nil && !d.admit(w, r) {
			return
		}
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		mu.Lock()
		open = append(open, web{ws})
		mu.Unlock()
		serve(web{ws})
		ws.Close()
	})}
	server.ErrorLog = log.New(io.Discard, "", 0) // handshakes that are to fail
	in := net.Listener(countedListener{l, &serving})
	if d.tls != nil {
		in = tls.NewListener(in, d.tls)
	}
	serving.Go(func() { _ = server.Serve(in) })
	t.Cleanup(func() {
		server.Close()
		mu.Lock()
		for _, ws := range open {
			ws.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return l.Addr().String()
}

// countedListener lets the connections of an http.Server be waited for, also
// those that became WebSockets.
type countedListener struct {
	net.Listener
	open *sync.WaitGroup
}

func (l countedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &countedConn{Conn: conn, done: sync.OnceFunc(l.open.Done)}, nil
}

type countedConn struct {
	net.Conn
	done func()
}

func (c *countedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}

// lines is a frame a line, for both ends of a net.Pipe: in a synctest bubble
// there is no network.
type lines struct {
	net.Conn
	in *bufio.Reader
}

func newLines(conn net.Conn) lines { return lines{conn, bufio.NewReader(conn)} }

func (l lines) read() (string, error) {
	line, err := l.in.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

func (l lines) write(frame string) error {
	_, err := l.Conn.Write([]byte(frame + "\n"))
	return err
}

func (l lines) close() { l.Conn.Close() }

// lineConn makes lines a wire.Conn.
type lineConn struct{ lines }

func (c lineConn) Read() ([][]byte, error) {
	frame, err := c.read()
	if err != nil {
		return nil, err
	}
	var units [][]byte
	for unit := range strings.SplitSeq(frame, "\x00") {
		units = append(units, []byte(unit))
	}
	return units, nil
}

func (c lineConn) Write(units [][]byte) error {
	if len(units) == 0 {
		return nil
	}
	var frame []string
	for _, unit := range units {
		frame = append(frame, string(unit))
	}
	return c.write(strings.Join(frame, "\x00"))
}

// pipe is the dial of a Link in a bubble: every address is served by serve.
func pipe(serve func(frames)) func(context.Context, string) (wire.Conn, error) {
	return func(context.Context, string) (wire.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { // ends when the Link closes its end
			serve(newLines(theirs))
			theirs.Close()
		}()
		return lineConn{newLines(ours)}, nil
	}
}

// request is a unit of the Link.
type request struct {
	text        string
	id, session string
	credentials string // of an introduction
	target      string // "" if it is no call
	method      string
	args        []json.RawMessage
}

// attaches tells whether it introduces a session that was reserved.
func (r request) attaches() bool { return r.target == "" && r.credentials == "" }

// arg is an argument that must be a string.
func (r request) arg(n int) string {
	var s string
	if n < len(r.args) {
		_ = json.Unmarshal(r.args[n], &s)
	}
	return s
}

// parseRequest takes a unit of section 2 apart: [id,[session,credentials]] or
// [id,[session,null],[target,[method,args]]].
func parseRequest(text string) (request, error) {
	r := request{text: text}
	var unit, door, call, what []json.RawMessage
	into := func(raw json.RawMessage, v any) error {
		if err := json.Unmarshal(raw, v); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		return nil
	}
	if err := into(json.RawMessage(text), &unit); err != nil {
		return r, err
	}
	if len(unit) < 2 || len(unit) > 3 {
		return r, fmt.Errorf("%s: %d elements", text, len(unit))
	}
	if err := into(unit[0], &r.id); err != nil {
		return r, err
	}
	if err := into(unit[1], &door); err != nil || len(door) != 2 {
		return r, fmt.Errorf("%s: no session and credentials", text)
	}
	if err := into(door[0], &r.session); err != nil {
		return r, err
	}
	if s := string(door[1]); s != "null" {
		r.credentials = s
	}
	if len(unit) == 2 {
		return r, nil
	}
	if err := into(unit[2], &call); err != nil || len(call) != 2 {
		return r, fmt.Errorf("%s: no target and call", text)
	}
	if err := into(call[0], &r.target); err != nil {
		return r, err
	}
	if err := into(call[1], &what); err != nil || len(what) != 2 {
		return r, fmt.Errorf("%s: no method and arguments", text)
	}
	if err := into(what[0], &r.method); err != nil {
		return r, err
	}
	return r, into(what[1], &r.args)
}

// conn is a connection of the peer with what was agreed on it.
type conn struct {
	frames
	mu       sync.Mutex        // of what follows, and of write
	sessions map[string]string // id -> of what: "lan", "needs", "services" or the name of a need
	queries  map[string]string // "needs", "services" -> id of the query
	last     int
}

// send writes units in one frame. That the Link is gone is for the reader to
// find out.
func (c *conn) send(units ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.write(strings.Join(units, "\x00"))
}

// requests hands on what the Link sends, pings answered, until the connection
// ends.
func (c *conn) requests(t *testing.T, take func(request)) {
	for {
		frame, err := c.read()
		if err != nil {
			return
		}
		for text := range strings.SplitSeq(frame, "\x00") {
			if number, ok := strings.CutPrefix(text, `["?",`); ok {
				c.send(`["!",` + number)
				continue
			}
			r, err := parseRequest(text)
			if err != nil {
				t.Errorf("the Link sent an odd unit: %v", err)
				return
			}
			take(r)
		}
	}
}

// owner takes the events of a Link.
type owner struct{ events chan Event }

func newOwner() *owner { return &owner{make(chan Event, 4096)} }

func (o *owner) emit(ctx context.Context, e Event) {
	select {
	case o.events <- e:
	case <-ctx.Done():
	}
}

// next is the event that comes next.
func (o *owner) next(t *testing.T) Event {
	t.Helper()
	select {
	case e := <-o.events:
		if up, ok := e.(Up); ok {
			up.Attend()
		}
		return e
	case <-time.After(time.Minute):
		t.Fatal("no event within a minute")
		return nil
	}
}

// expect is the next event, which has to be of type E.
func expect[E Event](t *testing.T, o *owner) E {
	t.Helper()
	e := o.next(t)
	want, ok := e.(E)
	if !ok {
		t.Fatalf("event %q came, want a %T", show(e), want)
	}
	return want
}

// none makes sure that no event is there, or comes before time goes on. Only
// in a bubble.
func (o *owner) none(t *testing.T) {
	t.Helper()
	select {
	case e := <-o.events:
		t.Fatalf("event %s came, want none", show(e))
	default:
	}
}

// show is an event in a few words.
func show(e Event) string {
	switch e := e.(type) {
	case Up:
		var needs, services []string
		for _, n := range e.Needs {
			needs = append(needs, n.InstanceName)
		}
		for _, s := range e.Services {
			services = append(services, s.InstanceName)
		}
		return fmt.Sprintf("up seen as %s, needs %v, services %v", e.SeenAs, needs, services)
	case Down:
		return "down: " + e.Err.Error()
	case NeedOpened:
		return "need " + e.Need.InstanceName + " open"
	case NeedTaken:
		return "need " + e.Instance + " taken"
	case NeedGone:
		return "need " + e.Instance + " gone"
	case ServiceSet:
		return fmt.Sprintf("service %s at %s %v", e.Service.InstanceName, e.Service.IPAddress, e.Service.Ports)
	case ServiceGone:
		return "service " + e.Instance + " gone"
	case Pending:
		return "bid " + e.Bid.Instance + " pending"
	case Challenged:
		return "bid " + e.Bid.Instance + " challenged"
	case BidEnded:
		return fmt.Sprintf("bid %s %s", e.Bid.Instance, e.Outcome)
	}
	return fmt.Sprintf("%#v", e)
}

// run lets a Link run until the test ends.
func run(t *testing.T, l *Link) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != context.Canceled {
			t.Errorf("Run returned %v", err)
		}
	})
}

// slow is an owner that takes a second for the events that fit.
func slow(o *owner, fits func(Event) bool) func(context.Context, Event) {
	return func(ctx context.Context, e Event) {
		if fits(e) {
			time.Sleep(time.Second)
		}
		o.emit(ctx, e)
	}
}
