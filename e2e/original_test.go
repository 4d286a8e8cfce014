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
	changed  chan struct{} // closed and renewed at every change of services
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
	queue  []request
}

// request is a call that is to be answered.
type request struct {
	session *session
	id      string
}

// shift is a change of the table of services.
type shift struct {
	instance, address string
	up                bool
}

// peer is a connection.
type peer struct {
	*websocket.Conn
	ip string
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
	t.Cleanup(func() {
		o.server.Close()
		o.mu.Lock()
		o.drop("")
		o.peers = nil
		o.mu.Unlock()
		o.serving.Wait()
	})
	return o
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
			addresses[name] = r["ipaddress"].(string)
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
	p := &peer{conn, ip}
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
	id := word(unit[0])
	if id == "?" {
		o.send(p, "!", unit[1])
		return
	}
	var who [2]json.RawMessage
	o.must(json.Unmarshal(unit[1], &who))
	s := o.sessions[word(who[0])]
	switch {
	case string(who[0]) == "null" && len(unit) == 2:
		o.introduce(p, id)
	case s == nil || s.conn != p:
		o.send(p, "f", json.RawMessage(text))
	case len(unit) == 2: // a reserved session
		o.send(p, "oob", []any{s.id, "s", record{"p": []string{"name"}, "o": "s", "d": p.ip}})
		o.resolve(request{s, id}, record{"session": s.id, "role": "user", "modulename": s.kind})
	default:
		var call [2]json.RawMessage
		var method []json.RawMessage
		o.must(json.Unmarshal(unit[2], &call))
		o.must(json.Unmarshal(call[1], &method))
		var args []json.RawMessage
		o.must(json.Unmarshal(method[1], &args))
		o.call(request{s, id}, s.kind+word(call[0])+word(method[0]), args)
	}
}

func (o *original) call(r request, method string, args []json.RawMessage) {
	switch table, isQuery := strings.CutSuffix(method, "!query"); {
	case isQuery:
		o.query(r, table)
	case strings.HasSuffix(method, "!confirmReservation"):
		o.resolve(r, "ok")
	case method == "needs!subConnect":
		o.lead(r, word(args[0]))
	case strings.HasSuffix(method, "!subConnect"):
		o.reserve(r, word(args[0]), "")
	case method == "need!bid":
		o.bid(r)
	case method == "need!respond":
		o.respond(r, args)
	case method == "need!die":
		o.resolve(r, "dead")
		o.end(r.session)
	case method == "lan.notifyServiceDown":
		name := word(args[0])
		_, there := o.services[name]
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

// introduce begins a session, which wipes the services of its address.
func (o *original) introduce(p *peer, id string) {
	var lost []string
	for name, r := range o.services {
		if r["ipaddress"] == p.ip {
			lost = append(lost, name)
		}
	}
	if len(lost) > 0 {
		o.down(equal("ipaddress", p.ip), lost...)
	}
	s := o.session("lan", "", p)
	for _, name := range []string{"haveservices", "haveneeds", "havenat", "haveengaged_modules"} {
		o.send(p, "oob", []any{s.id, "s", record{"p": []string{name}, "o": "s", "d": true}})
	}
	o.send(p, "oob", []any{s.id, "s", record{"p": []string{"name"}, "o": "s", "d": p.ip}})
	o.resolve(request{s, id}, record{"session": s.id, "role": "user", "modulename": "allex_lanmanagerservice"})
}

func (o *original) session(kind, need string, p *peer) *session {
	s := &session{o.newID(), kind, need, p}
	o.sessions[s.id] = s
	return s
}

// lead leads to an open need, and keeps who asks for another waiting.
func (o *original) lead(r request, need string) {
	if o.needs[need] == nil {
		o.waiting[need] = append(o.waiting[need], r)
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
}

func (o *original) tell(table string, item ...any) {
	for _, r := range o.queries[table] {
		o.notify(r, item...)
	}
}

func (o *original) notify(r request, item ...any) { o.send(r.session.conn, "n", r.id, item) }
func (o *original) resolve(r request, value any)  { o.send(r.session.conn, "r", r.id, value) }
func (o *original) reject(r request, code, m string) {
	o.send(r.session.conn, "e", r.id, record{"code": code, "message": m})
}

// send writes a unit. A peer that is gone is lost where it is read.
func (o *original) send(p *peer, unit ...any) {
	text, err := json.Marshal(unit)
	o.must(err)
	_ = p.WriteMessage(websocket.TextMessage, text)
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
