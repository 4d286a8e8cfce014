//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
)

// original is a LAN manager that behaves as the published one does where that
// matters to agents (lan/PROTOCOL.md sections 2 to 10): a new session wipes the
// services of its address, the loss of one wipes nothing; bids never time out,
// tickets are not checked, and an absent need keeps who asks for it waiting. It
// uses no code of this project.
type original struct {
	t        *testing.T
	listener net.Listener
	server   *http.Server
	serving  sync.WaitGroup // connections and port checks

	mu       sync.Mutex
	peers    map[*peer]struct{} // nil when it has ended
	lastID   int
	needs    map[string]record // open ones
	wanted   map[string]record // as they were asked for
	services map[string]record
	waiting  map[string][]request // subConnects to needs that are not open
	bids     map[string]*bidding
	sessions map[string]*session
	queries  map[string][]request // by table
	history  []shift
	reports  []string      // what was said of services that went down, as JSON
	changed  chan struct{} // closed and renewed at every change of services
	quirks
}

// quirks are what other versions than the published one do, and what happens to
// it. They are set before an agent comes, or with the lock held.
type quirks struct {
	// on is asked first about each request, with the lock held. If it reports
	// true, it has dealt with it.
	on         func(step string, r request, args []json.RawMessage) bool
	keeps      bool // a new session wipes nothing
	wipesDrops bool // the loss of a session wipes the services of its address
	piles      bool // units that come together go in one frame, with a NUL behind
	strays     bool // items come twice, and for records that are gone
	swallows   bool // who asks for a need that is not open is never answered
	noEnd      bool // the session of a need that was won is left as it is
}

type record map[string]any

// session is one of the LAN manager itself (kind "lan"), of a table (its name),
// or of a need (kind "need").
type session struct {
	id, kind, need string
	conn           *peer
}

// bidding is who has the word on a need, and who waits for it.
type bidding struct {
	holder *session
	ticket string // of the holder
	queue  []request
}

// request is a call that is to be answered.
type request struct {
	session *session
	id      string
	text    json.RawMessage // the unit
}

// shift is a change of the table of services.
type shift struct {
	instance, address string
	up                bool
}

// peer is a connection.
type peer struct {
	*websocket.Conn
	ip   string
	pile []string // units for the next frame
}

// startOriginal runs one until the test ends.
func startOriginal(t *testing.T, address string, wanted []record) *original {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	o := &original{
		t: t, listener: l, peers: map[*peer]struct{}{},
		needs: map[string]record{}, wanted: map[string]record{}, services: map[string]record{},
		waiting: map[string][]request{}, bids: map[string]*bidding{}, sessions: map[string]*session{},
		queries: map[string][]request{}, changed: make(chan struct{}),
	}
	for _, n := range wanted {
		name := n["instancename"].(string)
		o.wanted[name] = n
		o.open(name)
	}
	o.server = &http.Server{Handler: http.HandlerFunc(o.serve)}
	o.serving.Go(func() { _ = o.server.Serve(l) })
	t.Cleanup(o.stop)
	return o
}

// stop ends it for good.
func (o *original) stop() {
	o.server.Close()
	o.mu.Lock()
	o.drop("")
	o.peers = nil
	o.mu.Unlock()
	o.serving.Wait()
}

// do has something happen to it.
func (o *original) do(what func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	what()
	o.flush()
}

// cut ends the connections from an address.
func (o *original) cut(ip string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop(ip)
}

func (o *original) drop(ip string) {
	for p := range o.peers {
		if ip == "" || p.ip == ip {
			p.Close()
		}
	}
}

// await waits until the services, by their addresses, and their history are as
// wanted.
func (o *original) await(s *stage, what string, wanted func(addresses map[string]string, history []shift) bool) {
	s.t.Helper()
	for {
		o.mu.Lock()
		addresses := map[string]string{}
		for name, r := range o.services {
			addresses[name], _ = r["ipaddress"].(string) // none of a phantom
		}
		done, changed := wanted(addresses, o.history), o.changed
		o.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			s.t.Fatalf("it did not come to that: %s; the services are %v", what, addresses)
		}
	}
}

// since is what has changed since the first began changes.
func (o *original) since(began int) []shift {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.history[began:len(o.history):len(o.history)]
}

func (o *original) serve(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		o.t.Error(err)
		return
	}
	ip, _, _ := net.SplitHostPort(r.RemoteAddr)
	p := &peer{Conn: conn, ip: ip}
	defer conn.Close()
	if !o.admit(p) {
		return
	}
	defer o.serving.Done()
	defer o.lose(p)
	for {
		kind, frame, err := conn.ReadMessage()
		if err != nil {
			return
		}
		if kind != websocket.TextMessage {
			continue
		}
		for unit := range strings.SplitSeq(string(frame), "\x00") {
			if unit != "" {
				o.take(p, []byte(unit))
			}
		}
	}
}

func (o *original) admit(p *peer) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.peers == nil {
		return false
	}
	o.peers[p] = struct{}{}
	o.serving.Add(1)
	return true
}

// take takes one unit.
func (o *original) take(p *peer, text []byte) {
	var unit []json.RawMessage
	if err := json.Unmarshal(text, &unit); err != nil || len(unit) < 2 {
		o.t.Errorf("an agent said %s", text)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.flush()
	var who [2]json.RawMessage
	id := word(unit[0])
	if id != "?" {
		o.must(json.Unmarshal(unit[1], &who))
	}
	r := request{o.sessions[word(who[0])], id, text}
	does := func(step string, args []json.RawMessage) bool { return o.on == nil || !o.on(step, r, args) }
	switch s := r.session; {
	case id == "?":
		r.session = &session{conn: p}
		if does("ping", nil) {
			o.send(p, "!", unit[1])
		}
	case string(who[0]) == "null" && len(unit) == 2:
		r.session = &session{conn: p}
		if does("introduce", nil) {
			o.introduce(p, id)
		}
	case s == nil || s.conn != p:
		o.send(p, "f", json.RawMessage(text))
	case len(unit) == 2: // a reserved session
		if does(s.kind+" attach", nil) {
			o.send(p, "oob", []any{s.id, "s", record{"p": []string{"name"}, "o": "s", "d": p.ip}})
			o.resolve(r, record{"session": s.id, "role": "user", "modulename": s.kind})
		}
	default:
		var call [2]json.RawMessage
		var method []json.RawMessage
		o.must(json.Unmarshal(unit[2], &call))
		o.must(json.Unmarshal(call[1], &method))
		var args []json.RawMessage
		o.must(json.Unmarshal(method[1], &args))
		if target := word(call[0]); target != "." && target != "!" {
			o.t.Errorf("the original would end at %s", text) // quirk 7
		}
		if step := s.kind + word(call[0]) + word(method[0]); does(step, args) {
			o.call(r, step, args)
		}
	}
}

// forget gives a unit back, and does not know its session any more.
func (o *original) forget(r request) {
	o.send(r.session.conn, "f", r.text)
	delete(o.sessions, r.session.id)
	o.yield(r.session)
}

func (o *original) call(r request, method string, args []json.RawMessage) {
	switch table, isQuery := strings.CutSuffix(method, "!query"); {
	case isQuery:
		if string(args[0]) != `{"continuous":true}` {
			o.t.Errorf("the original does not understand the query %s", args[0]) // quirk 9
		}
		o.query(r, table)
	case strings.HasSuffix(method, "!confirmReservation"):
		o.resolve(r, "ok")
	case method == "needs!subConnect":
		o.lead(r, word(args[0]))
	case strings.HasSuffix(method, "!subConnect"):
		o.reserve(r, word(args[0]), "")
	case method == "need!bid":
		o.bid(r, args)
	case method == "need!respond":
		o.respond(r, args)
	case method == "need!die":
		o.resolve(r, "dead")
		o.end(r.session)
	case method == "lan.notifyServiceDown":
		name := word(args[0])
		_, there := o.services[name]
		if len(args) > 1 {
			o.reports = append(o.reports, string(args[1]))
		}
		if there {
			o.down(equal("instancename", name), name)
		}
		o.resolve(r, there)
	case method == "lan.notifyModuleEngaged":
		o.tell("engaged_modules", "u", nil, record{"upsert": true})
		o.resolve(r, word(args[0]))
	default:
		o.reject(r, "METHOD_DOES_NOT_EXIST", "Method "+method+" does not exist")
	}
}

// wipe takes the services of an address off.
func (o *original) wipe(ip string) {
	var lost []string
	for name, r := range o.services {
		if r["ipaddress"] == ip {
			lost = append(lost, name)
		}
	}
	if len(lost) > 0 {
		o.down(equal("ipaddress", ip), lost...)
	}
}

// introduce begins a session, which wipes the services of its address.
func (o *original) introduce(p *peer, id string) {
	if !o.keeps {
		o.wipe(p.ip)
	}
	s := o.session("lan", "", p)
	for _, name := range []string{"haveservices", "haveneeds", "havenat", "haveengaged_modules"} {
		o.send(p, "oob", []any{s.id, "s", record{"p": []string{name}, "o": "s", "d": true}})
	}
	o.send(p, "oob", []any{s.id, "s", record{"p": []string{"name"}, "o": "s", "d": p.ip}})
	o.resolve(request{session: s, id: id}, record{"session": s.id, "role": "user", "modulename": "allex_lanmanagerservice"})
}

func (o *original) session(kind, need string, p *peer) *session {
	s := &session{o.newID(), kind, need, p}
	o.sessions[s.id] = s
	return s
}

// lead leads to an open need, and keeps who asks for another waiting.
func (o *original) lead(r request, need string) {
	if o.needs[need] == nil {
		if !o.swallows {
			o.waiting[need] = append(o.waiting[need], r)
		}
		return
	}
	o.reserve(r, "need", need)
}

func (o *original) reserve(r request, kind, need string) {
	s := o.session(kind, need, r.session.conn)
	o.resolve(r, record{"introduce": record{"session": s.id, "modulename": kind, "role": "user"}})
}

func (o *original) query(r request, table string) {
	rows := map[string]map[string]record{"needs": o.needs, "services": o.services}[table]
	o.notify(r, "i", o.newID())
	o.notify(r, "rb", "1")
	for _, row := range rows {
		o.notify(r, "r1", "1", row)
	}
	o.notify(r, "re", "1")
	o.queries[table] = append(o.queries[table], r)
}

// lose forgets the sessions of a connection, and leaves the services alone.
func (o *original) lose(p *peer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.peers, p)
	var lost []*session
	for id, s := range o.sessions {
		if s.conn == p {
			delete(o.sessions, id)
			lost = append(lost, s)
		}
	}
	for _, byWhom := range []map[string][]request{o.queries, o.waiting} {
		for key, all := range byWhom {
			var rest []request
			for _, r := range all {
				if r.session.conn != p {
					rest = append(rest, r)
				}
			}
			byWhom[key] = rest
		}
	}
	for _, s := range lost {
		o.yield(s)
	}
	if o.wipesDrops {
		o.wipe(p.ip)
	}
	o.flush()
}

func (o *original) tell(table string, item ...any) {
	for _, r := range o.queries[table] {
		o.notify(r, item...)
		if o.strays && item[0] == "d" { // quirk 14
			o.notify(r, "u", item[1], record{"closed": true})
			o.notify(r, "u", item[1], record{"pid": 1, "tcpport": 5})
			o.notify(r, item...)
		}
	}
}

func (o *original) notify(r request, item ...any) { o.send(r.session.conn, "n", r.id, item) }
func (o *original) resolve(r request, value any)  { o.send(r.session.conn, "r", r.id, value) }
func (o *original) reject(r request, code, m string) {
	o.send(r.session.conn, "e", r.id, record{"code": code, "message": m})
}

// send writes a unit, or keeps it for flush. A peer that is gone is lost where it
// is read.
func (o *original) send(p *peer, unit ...any) {
	text, err := json.Marshal(unit)
	o.must(err)
	if o.piles {
		p.pile = append(p.pile, string(text))
		return
	}
	_ = p.WriteMessage(websocket.TextMessage, text)
}

// flush writes what has piled up.
func (o *original) flush() {
	for p := range o.peers {
		if len(p.pile) > 0 {
			_ = p.WriteMessage(websocket.TextMessage, []byte(strings.Join(p.pile, "\x00")+"\x00"))
			p.pile = nil
		}
	}
}

func (o *original) newID() string {
	o.lastID++
	return fmt.Sprintf("id-%d", o.lastID)
}

func (o *original) must(err error) {
	if err != nil {
		o.t.Error(err)
	}
}

func equal(field, value string) record { return record{"op": "eq", "field": field, "value": value} }

// word is a JSON string; empty if it is something else.
func word(text json.RawMessage) (s string) {
	_ = json.Unmarshal(text, &s)
	return s
}
