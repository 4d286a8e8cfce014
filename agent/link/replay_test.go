package link

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// A recording is one connection of a transcript, cut into what was asked and
// what came of each request.
type recording struct {
	requests []*recorded
	sessions map[string]*recorded // id -> the subConnect or introduction that made it
}

// recorded is a request of the recorded client.
type recorded struct {
	request
	effects []string // the units that it brought about, in their order
	taken   bool     // the Link has been sent the effects
}

// The units of both kinds of transcript, and where connections begin.
var (
	recordedUnit  = regexp.MustCompile(`^ *[0-9.]+ (?:#\d+ )?(C>S|S>C|>|<) (?:\(\+NUL\) )?(.*)$`)
	recordedBegin = regexp.MustCompile(`^ *[0-9.]+ (#\d+ UPGRADE|-- upgrade)`)
)

func readRecordings(t *testing.T, name string) []*recording {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "lan", "testdata", "transcripts", name))
	if err != nil {
		t.Fatal(err)
	}
	var all []*recording
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if recordedBegin.MatchString(line) {
			all = append(all, &recording{sessions: make(map[string]*recorded)})
			continue
		}
		m := recordedUnit.FindStringSubmatch(line)
		if m == nil || strings.HasPrefix(m[2], `["?"`) || strings.HasPrefix(m[2], `["!"`) {
			continue
		}
		now := all[len(all)-1]
		if m[1] == "C>S" || m[1] == ">" {
			r, err := parseRequest(m[2])
			if err != nil {
				t.Fatal(err)
			}
			now.requests = append(now.requests, &recorded{request: r})
		} else if err := now.attribute(m[2]); err != nil {
			t.Fatalf("%s: %v", m[2], err)
		}
	}
	return all
}

// attribute finds the request that brought about a unit of the recorded LAN
// manager. Answers name it. What comes by itself is the work of the latest
// response or business call; before there is one, of the query.
func (rec *recording) attribute(unit string) error {
	var parts []json.RawMessage
	if err := json.Unmarshal([]byte(unit), &parts); err != nil {
		return err
	}
	var kind, id string
	_ = json.Unmarshal(parts[0], &kind)
	_ = json.Unmarshal(parts[1], &id)
	cause := rec.find(func(r *recorded) bool { return r.id == id })
	acting := rec.find(func(r *recorded) bool { return r.method == "respond" || r.target == "." })
	switch kind {
	case "r", "e":
		rec.learn(cause, parts[2])
	case "f":
		echo, err := parseRequest(string(parts[1]))
		if err != nil {
			return err
		}
		cause = rec.find(func(r *recorded) bool { return r.id == echo.id })
	case "n":
		if acting != nil {
			cause = acting
		}
	case "oob":
		var oob [3]json.RawMessage
		var session, channel string
		if err := json.Unmarshal(parts[1], &oob); err != nil {
			return err
		}
		_ = json.Unmarshal(oob[0], &session)
		_ = json.Unmarshal(oob[1], &channel)
		switch {
		case channel == "-":
			cause = acting
		case rec.sessions[session] == nil: // of the introduction, whose answer comes behind
			cause = rec.find(func(r *recorded) bool { return r.credentials != "" })
		default:
			cause = rec.find(func(r *recorded) bool { return r.session == session && r.attaches() })
		}
	}
	if cause == nil {
		return fmt.Errorf("no request brought it about")
	}
	cause.effects = append(cause.effects, unit)
	return nil
}

// find is the latest request that fits.
func (rec *recording) find(fits func(*recorded) bool) *recorded {
	for _, r := range slices.Backward(rec.requests) {
		if fits(r) {
			return r
		}
	}
	return nil
}

// learn takes note of the sessions that an answer makes.
func (rec *recording) learn(cause *recorded, value json.RawMessage) {
	var made struct {
		Session   string
		Introduce struct{ Session string }
	}
	if json.Unmarshal(value, &made) != nil {
		return // an answer that is no object
	}
	if made.Introduce.Session != "" {
		rec.sessions[made.Introduce.Session] = cause
	} else if made.Session != "" && cause.credentials != "" {
		rec.sessions[made.Session] = cause
	}
}

// match finds the recorded request that one of the Link's repeats: the first
// of the same session, target, method and, where it names something, name.
// Session ids are the LAN manager's to choose, so they are the recorded ones.
func (rec *recording) match(r request) *recorded {
	for _, old := range rec.requests {
		if !old.taken && old.session == r.session && (old.credentials == "") == (r.credentials == "") &&
			old.target == r.target && old.method == r.method && (r.method == "respond" || r.method == "query" || old.arg(0) == r.arg(0)) {
			return old
		}
	}
	return nil
}

// foreign tells whether a Link never makes such a request: it does not read the
// table of NAT, and lets the LAN manager end the session of a need that was won.
// (Nor does it speak SignalR: what was recorded in that envelope is replayed in
// lan/wire.)
func (rec *recording) foreign(r *recorded) bool {
	of := r
	if by := rec.sessions[r.session]; by != nil {
		of = by
	}
	return r.method == "die" || r.method == "subConnect" && r.arg(0) == "nat" || of.method == "subConnect" && of.arg(0) == "nat"
}

// behind are the foreign requests that were recorded right behind another. The
// Link hears their answers too, and has to take no notice.
func (rec *recording) behind(r *recorded) []*recorded {
	after := rec.requests[slices.Index(rec.requests, r)+1:]
	end := slices.IndexFunc(after, func(r *recorded) bool { return !rec.foreign(r) })
	if end < 0 {
		end = len(after)
	}
	return after[:end]
}

// untaken are the requests that the Link did not repeat.
func (rec *recording) untaken() []string {
	var left []string
	for _, r := range rec.requests {
		if !r.taken {
			left = append(left, r.text)
		}
	}
	return left
}

// replay is a peer that answers a Link with what was recorded, a recording a
// connection.
type replay struct {
	t     *testing.T
	mu    sync.Mutex
	all   []*recording
	next  []*recording // of all
	conn  *conn
	seen  []request
	taken chan struct{} // closed and renewed at every request
}

func (p *replay) serve(f frames) {
	c := &conn{frames: f}
	p.mu.Lock()
	if len(p.next) == 0 {
		p.mu.Unlock()
		return // nothing was recorded any more
	}
	rec := p.next[0]
	p.next, p.conn = p.next[1:], c
	p.mu.Unlock()

	ids := make(map[string]string) // recorded id -> the Link's
	c.requests(p.t, func(r request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.seen = append(p.seen, r)
		old := rec.match(r)
		if old == nil {
			p.t.Errorf("nothing like this was recorded: %s", r.text)
			return
		}
		old.taken = true
		ids[old.id] = r.id
		for _, unit := range old.effects {
			c.send(renamed(p.t, unit, ids))
		}
		for _, other := range rec.behind(old) {
			other.taken = true
			c.send(other.effects...)
		}
		close(p.taken)
		p.taken = make(chan struct{})
	})
}

// renamed is a recorded unit with the Link's id in place of the recorded one.
func renamed(t *testing.T, unit string, ids map[string]string) string {
	var parts []json.RawMessage
	var id string
	if err := json.Unmarshal([]byte(unit), &parts); err != nil {
		t.Errorf("%s: %v", unit, err)
		return unit
	}
	if json.Unmarshal(parts[1], &id) != nil {
		return unit // out of band
	}
	new, ok := ids[id]
	if !ok {
		t.Errorf("the Link did not ask for %s", unit)
	}
	return strings.Replace(unit, `"`+id+`"`, `"`+new+`"`, 1)
}

// cut ends the present connection as the recorded ones ended.
func (p *replay) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn.close()
}

// wantAll waits until no exchange is left out.
func (p *replay) wantAll() {
	p.t.Helper()
	enough := time.After(time.Minute)
	for {
		p.mu.Lock()
		var left []string
		for n, rec := range p.all {
			for _, text := range rec.untaken() {
				left = append(left, fmt.Sprintf("connection %d: the Link did not repeat %s", n+1, text))
			}
		}
		taken := p.taken
		p.mu.Unlock()
		if len(left) == 0 {
			return
		}
		select {
		case <-taken:
		case <-enough:
			p.t.Fatal(strings.Join(left, "\n"))
		}
	}
}

// find is the latest request of the Link with that method.
func (p *replay) find(method string) request {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range slices.Backward(p.seen) {
		if r.method == method {
			return r
		}
	}
	return request{}
}

// replaying starts a Link against the recordings of a transcript.
func replaying(t *testing.T, name string) (*Link, *owner, *replay) {
	t.Helper()
	p := &replay{t: t, all: readRecordings(t, name), taken: make(chan struct{})}
	p.next = p.all
	if len(p.all) != 2 {
		t.Fatalf("%d connections in %s, want 2", len(p.all), name)
	}
	o := newOwner()
	l := New(Config{Addresses: []string{listen(t, p.serve)}, Name: "machine", ID: "agent-1", Emit: o.emit, Logger: hclog.NewNullLogger()})
	run(t, l)
	return l, o, p
}

// serve has one need served and returns what came meanwhile: what the tables
// said, in order, and what was said of the bid, in order. How the two mix is
// not said; that a bid is pending is, on a slow machine.
func (o *owner) serve(t *testing.T, l *Link, a Answer) (tables, bids []string) {
	t.Helper()
	l.Bid(a.Need.InstanceName)
	for accepted, served := false, false; !accepted || !served; {
		e := o.next(t)
		switch e := e.(type) {
		case Challenged:
			e.Bid.Respond(a)
		case BidEnded:
			accepted = true
		case ServiceSet:
			served = true
		}
		switch e.(type) {
		case Pending:
		case Challenged, BidEnded:
			bids = append(bids, show(e))
		default:
			tables = append(tables, show(e))
		}
	}
	return tables, bids
}

// wantServed compares with what a served need looks like.
func wantServed(t *testing.T, a Answer, tables, bids []string) {
	t.Helper()
	name := a.Need.InstanceName
	if diff := cmp.Diff([]string{"bid " + name + " challenged", "bid " + name + " accepted"}, bids); diff != "" {
		t.Errorf("events of the bid (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"need " + name + " taken", "need " + name + " gone",
		fmt.Sprintf("service %s at %s %v", name, a.IPAddress, a.Ports)}, tables); diff != "" {
		t.Errorf("events of the tables (-want +got):\n%s", diff)
	}
}

// wantNext compares the next events with those.
func (o *owner) wantNext(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for range want {
		got = append(got, show(o.next(t)))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
}

// TestReplayBidCycle plays the independent client's whole cycle: a need that
// becomes a service, is reported down, comes back and is served again; then
// the connection is cut and a second session finds the needs open.
func TestReplayBidCycle(t *testing.T) {
	l, o, p := replaying(t, "client-bid-cycle.log")
	up := expect[Up](t, o)
	if got, want := show(up), "up seen as 127.0.0.1, needs [Probe Fixed Strat], services []"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	probe, fixed, strat := up.Needs[0], up.Needs[1], up.Needs[2]
	if string(probe.PropertyHash) != `{"a":1}` || fixed.IPAddress != "10.1.2.3" || fixed.Ports != (table.Ports{TCP: 15777}) || strat.Timeout != 7 || strat.Rest["gate"] == nil {
		t.Errorf("the needs were read as %+v", up.Needs)
	}

	first := Answer{Need: probe, IPAddress: up.SeenAs, Ports: table.Ports{TCP: 15999, HTTP: 16999, WS: 17999}, PID: 32663}
	tables, bids := o.serve(t, l, first)
	wantServed(t, first, tables, bids)
	wantResponse(t, p.find("respond"), `["02fc00000001309741261098d812a5b8000265",{"instancename":"Probe","modulename":"probe_module","ipaddress":"127.0.0.1","tcpport":15999,"httpport":16999,"wsport":17999,"pid":32663}]`)

	l.ReportDown("Probe", "it ended", nil)
	o.wantNext(t, "service Probe gone", "need Probe open")

	second := Answer{Need: probe, IPAddress: up.SeenAs, Ports: table.Ports{TCP: 15999}, PID: 1}
	tables, bids = o.serve(t, l, second)
	wantServed(t, second, tables, bids)
	wantResponse(t, p.find("respond"), `["02fc00000001309741261759cdf230e9000298",{"instancename":"Probe","modulename":"probe_module","ipaddress":"127.0.0.1","tcpport":15999,"httpport":null,"wsport":null,"pid":1}]`)

	p.cut()
	expect[Down](t, o)
	o.wantNext(t, "up seen as 127.0.0.1, needs [Fixed Strat Probe], services []")
	p.wantAll()
}

// wantResponse compares the arguments of a response.
func wantResponse(t *testing.T, r request, want string) {
	t.Helper()
	args, err := json.Marshal(r.args)
	if err != nil {
		t.Fatal(err)
	}
	if !sameJSON(string(args), want) {
		t.Errorf("responded with %s, want %s", args, want)
	}
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && cmp.Equal(x, y)
}

// TestReplayMaster plays what a real LAN manager said to a real master: two
// needs served, one of them lost and served again, the LAN manager gone and
// back, and both needs answered with the processes that run on.
func TestReplayMaster(t *testing.T) {
	l, o, p := replaying(t, "master-ws.log")
	up := expect[Up](t, o)
	if got, want := show(up), "up seen as 127.0.0.1, needs [Time Time2], services []"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if up.Needs[0].Ports.Any() || up.Needs[1].Ports != (table.Ports{TCP: 15500, HTTP: 16500, WS: 17500}) {
		t.Errorf("the ports that the needs want were read as %v and %v", up.Needs[0].Ports, up.Needs[1].Ports)
	}
	one := Answer{Need: up.Needs[0], IPAddress: up.SeenAs, Ports: table.Ports{TCP: 15000, HTTP: 16000, WS: 17000}, PID: 5219}
	two := Answer{Need: up.Needs[1], IPAddress: up.SeenAs, Ports: table.Ports{TCP: 15500, HTTP: 16500, WS: 17500}, PID: 5232}
	for _, a := range []Answer{one, two} {
		tables, bids := o.serve(t, l, a)
		wantServed(t, a, tables, bids)
	}

	l.ReportDown("Time", "it ended by itself", &process.Exit{Signal: "SIGKILL"})
	o.wantNext(t, "service Time gone", "need Time open")
	one.PID = 10977
	tables, bids := o.serve(t, l, one)
	wantServed(t, one, tables, bids)

	p.cut()
	expect[Down](t, o)
	o.wantNext(t, "up seen as 127.0.0.1, needs [Time2 Time], services []")
	for _, a := range []Answer{two, one} {
		tables, bids := o.serve(t, l, a)
		wantServed(t, a, tables, bids)
	}

	// Who asks for a need that is not open waits, for ever.
	b := l.Bid("Time2")
	if e := expect[Pending](t, o); e.Bid != b {
		t.Error("another bid is pending")
	}
	p.wantAll()
	b.Cancel()
}
