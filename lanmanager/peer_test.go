package lanmanager

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/allexgo/machine-agent/lan/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = time.Minute

// running is a LAN manager at work.
type running struct {
	t         testing.TB
	m         *Manager
	url       string // of the first listener
	signalR   string // of the second, if there is one
	directory string
	log       *lockedLog
	stop      func() // and wait
}

// start runs a LAN manager with the given files, by name; needs is empty and so
// is nat unless they say otherwise.
func start(t testing.TB, c Config, files map[string]string) *running {
	t.Helper()
	if c.Directory == "" {
		c.Directory = t.TempDir()
		writeFile(t, c.Directory, "needs", "[]")
		writeFile(t, c.Directory, "nat", "[]")
	}
	for name, content := range files {
		writeFile(t, c.Directory, name, content)
	}
	if c.Listeners == nil {
		c.Listeners = at("127.0.0.1:0")
	}
	c.ProjectMap = cmp.Or(c.ProjectMap, filepath.Join(c.Directory, "projectmap.json"))
	r := &running{t: t, directory: c.Directory, log: &lockedLog{}}
	c.Logger = hclog.New(&hclog.LoggerOptions{Output: r.log, Level: hclog.Debug})
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Listen(); err != nil {
		t.Fatal(err)
	}
	r.m = m
	addresses := m.Addresses()
	r.url = "ws://" + addresses[0].String() + "/"
	if len(addresses) > 1 {
		r.signalR = "http://" + addresses[1].String() + "/"
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// at is a WebSocket listener at an address.
func at(address string) []Listener { return []Listener{{Envelope: WebSocket, Address: address}} }

// both are listeners of both envelopes.
func both() []Listener {
	return append(at("127.0.0.1:0"), Listener{Envelope: SignalR, Address: "127.0.0.1:0", Original: true})
}

func writeFile(t testing.TB, directory, name, content string) {
	t.Helper()
	path := filepath.Join(directory, ".allexlanmanager", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, directory, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(directory, ".allexlanmanager", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// lockedLog collects log lines.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// peer is a connection that keeps every unit that came.
type peer struct {
	t      testing.TB
	conn   wire.Conn
	lastID int

	mu      sync.Mutex
	units   []wire.Unit
	seen    int           // by next
	changed chan struct{} // closed and renewed when units or ended changes
	ended   error
}

// dial connects from an address of 127.0.0.0/8.
func (r *running) dial(from string) *peer {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := wire.Dial(ctx, r.url, wire.DialOptions{LocalIP: net.ParseIP(from)})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.peer(conn)
}

// dialSignalR is dial in the envelope of a stock master.
func (r *running) dialSignalR(from string) *peer {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := wire.DialSignalR(ctx, r.signalR, wire.DialOptions{LocalIP: net.ParseIP(from)})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.peer(conn)
}

func (r *running) peer(conn wire.Conn) *peer {
	p := &peer{t: r.t, conn: conn, changed: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.read()
	}()
	r.t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return p
}

func (p *peer) read() {
	for {
		texts, err := p.conn.Read()
		p.mu.Lock()
		p.ended = err
		for _, text := range texts {
			u, err := wire.ParseReply(text, wire.Limits{})
			if err != nil {
				p.t.Errorf("the LAN manager sent %s: %v", text, err)
				continue
			}
			p.units = append(p.units, u)
		}
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *peer) send(texts ...string) {
	p.t.Helper()
	units := make([][]byte, len(texts))
	for i, text := range texts {
		units[i] = []byte(text)
	}
	if err := p.conn.Write(units); err != nil {
		p.t.Fatal(err)
	}
}

// find waits until the first unit that is as wanted has come.
func (p *peer) find(what string, is func(wire.Unit) bool) wire.Unit {
	p.t.Helper()
	late := time.After(patience)
	for {
		p.mu.Lock()
		for _, u := range p.units {
			if is(u) {
				p.mu.Unlock()
				return u
			}
		}
		changed, ended := p.changed, p.ended
		p.mu.Unlock()
		if ended != nil {
			p.t.Fatalf("no %s: the connection ended: %v", what, ended)
		}
		select {
		case <-changed:
		case <-late:
			p.t.Fatalf("no %s; what came:\n%s", what, p)
		}
	}
}

// gone waits until the connection has ended.
func (p *peer) gone() {
	p.t.Helper()
	late := time.After(patience)
	for {
		p.mu.Lock()
		changed, ended := p.changed, p.ended
		p.mu.Unlock()
		if ended != nil {
			return
		}
		select {
		case <-changed:
		case <-late:
			p.t.Fatal("the connection did not end")
		}
	}
}

func (p *peer) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, u := range p.units {
		fmt.Fprintf(&b, "%s\n", u.AppendJSON(nil))
	}
	return b.String()
}

func isAnswer(id string) func(wire.Unit) bool {
	return func(u wire.Unit) bool {
		return u.ID == id && (u.Kind == wire.Resolve || u.Kind == wire.Reject)
	}
}

// begin sends a call and returns its id.
func (p *peer) begin(session, target, method string, args ...any) string {
	p.t.Helper()
	p.lastID++
	id := fmt.Sprintf("p%d", p.lastID)
	u := wire.Unit{Kind: wire.Call, ID: id, Session: session, Target: target, Method: method, Args: []json.RawMessage{}}
	for _, arg := range args {
		u.Args = append(u.Args, marshal(arg))
	}
	p.send(string(u.AppendJSON(nil)))
	return id
}

// answer waits for the answer to a call.
func (p *peer) answer(id string) wire.Unit {
	p.t.Helper()
	return p.find("answer to "+id, isAnswer(id))
}

func (p *peer) call(session, target, method string, args ...any) wire.Unit {
	p.t.Helper()
	return p.answer(p.begin(session, target, method, args...))
}

// value is a call's result as JSON; a rejection is its code.
func (p *peer) value(session, target, method string, args ...any) string {
	p.t.Helper()
	u := p.call(session, target, method, args...)
	if u.Kind == wire.Reject {
		return u.Code
	}
	return string(u.Value)
}

// introduce opens a session on the LAN manager, with an id if that is not empty.
func (p *peer) introduce(id string) string {
	p.t.Helper()
	u := p.tryIntroduce(id)
	if u.Kind == wire.Reject {
		p.t.Fatalf("refused: %s %s", u.Code, u.Message)
	}
	return sessionIn(p.t, u.Value)
}

func (p *peer) tryIntroduce(id string) wire.Unit {
	p.t.Helper()
	p.lastID++
	unit := fmt.Sprintf("p%d", p.lastID)
	credentials := map[string]string{"name": "tester", "role": "user"}
	if id != "" {
		credentials["id"] = id
	}
	p.send(string(wire.Unit{Kind: wire.Introduce, ID: unit,
		Credentials: marshal(map[string]any{"ip": credentials})}.AppendJSON(nil)))
	return p.answer(unit)
}

func sessionIn(t testing.TB, value json.RawMessage) string {
	t.Helper()
	var v struct{ Session string }
	if err := json.Unmarshal(value, &v); err != nil || v.Session == "" {
		t.Fatalf("no session in %s", value)
	}
	return v.Session
}

// sub opens a sub-session.
func (p *peer) sub(session, name string) string {
	p.t.Helper()
	return p.subOf(p.begin(session, "!", "subConnect", name, map[string]string{"role": "user"}))
}

func (p *peer) subOf(id string) string {
	p.t.Helper()
	u := p.answer(id)
	if u.Kind == wire.Reject {
		p.t.Fatalf("subConnect: %s %s", u.Code, u.Message)
	}
	var v struct{ Introduce json.RawMessage }
	if err := json.Unmarshal(u.Value, &v); err != nil {
		p.t.Fatal(err)
	}
	return sessionIn(p.t, v.Introduce)
}

// bid bids and returns the ticket of the challenge.
func (p *peer) bid(session string) string {
	p.t.Helper()
	return p.ticket(p.begin(session, "!", "bid", map[string]string{}))
}

func (p *peer) ticket(id string) string {
	p.t.Helper()
	u := p.answer(id)
	var v struct {
		Bid string
		C   bool
	}
	if err := json.Unmarshal(u.Value, &v); err != nil || !v.C {
		p.t.Fatalf("no challenge: %s", u.AppendJSON(nil))
	}
	return v.Bid
}

// serve takes a need the whole way, with a port that listens.
func (p *peer) serve(needs, name string, port int) {
	p.t.Helper()
	n := p.sub(needs, name)
	got := p.call(n, "!", "respond", p.bid(n), map[string]any{"pid": 7, "tcpport": port})
	if got.Kind != wire.Resolve {
		p.t.Fatalf("not accepted: %s", got.AppendJSON(nil))
	}
}

// names reads the instance names that are on a table.
func (p *peer) names(tableSession string) []string {
	p.t.Helper()
	id := p.begin(tableSession, ".", "read", map[string]string{})
	p.answer(id)
	names := []string{}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.units {
		if u.Kind != wire.Notify || u.ID != id {
			continue
		}
		var item []json.RawMessage
		if json.Unmarshal(u.Value, &item) == nil && string(item[0]) == `"r1"` {
			var record fields
			_ = json.Unmarshal(item[2], &record)
			names = append(names, record.textOr("instancename", record.text("modulename")))
		}
	}
	return names
}

// item waits for an item of a continuous query that contains all the texts.
func (p *peer) item(query string, texts ...string) {
	p.t.Helper()
	p.find("item with "+strings.Join(texts, " and "), func(u wire.Unit) bool {
		if u.Kind != wire.Notify || u.ID != query {
			return false
		}
		for _, text := range texts {
			if !strings.Contains(string(u.Value), text) {
				return false
			}
		}
		return true
	})
}

// forgetUnits clears what came until now, so that find looks for what comes.
func (p *peer) forgetUnits() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.units = nil
}

// listener accepts connections on a port of 127.0.0.1 and closes them.
func listener(t *testing.T) int { t.Helper(); return listenerOn(t, "127.0.0.1") }

func listenerOn(t testing.TB, address string) int {
	t.Helper()
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().(*net.TCPAddr).Port
}

// deafPort is a port that is taken and where nobody listens.
func deafPort(t *testing.T) int {
	t.Helper()
	// A connected socket's own port is bound and does not listen.
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", listener(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().(*net.TCPAddr).Port
}
