//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// simulated is the LAN side of an agent with next to nothing behind it: on an
// address of its own it introduces itself with an id, follows the needs and the
// services, bids for its share of the needs, at most bidsAtOnce at a time, and
// answers challenges with a port that really listens.
//
// Five hundred of them share two cores with what is measured, so an item of a
// query is not parsed: the place where the name of its need stands is enough to
// count it and to keep, of either table, the number and the sum of its names,
// which is what is compared in the end. Those that mirror keep whole tables.
type simulated struct {
	crowd    *crowd
	number   int
	tables   [2]*followed
	listener net.Listener
	conn     wire.Conn // what is wrong with it its reader finds, who knows the cause

	mu       sync.Mutex // of what follows, of writing to conn, and of connecting
	lastID   int
	pending  map[string]func(wire.Unit) // calls without an answer
	lan      string                     // sessions
	needs    string
	queue    []int // needs to bid for
	attempts map[int]*attempt
}

// attempt is a bid under way, from the subConnect to the acceptance, or until
// another has the need.
type attempt struct{ session string }

const bidsAtOnce = 4

// The tables that are followed. Their queries have ids of one character.
const (
	needsTable = iota
	servicesTable
)

var followedNames = [...]string{"needs", "services"}

// followed is what a simulated agent knows of a table. Its reader writes it.
type followed struct {
	items  [256]int64    // that came, by the letter of their kind: r is r1
	length atomic.Int64  // of the table
	sum    uint64        // of hash(need) of all that are on it
	mirror *table.Mirror // nil for most
	read   chan struct{} // closed at the end of the first reading
}

// hash spreads the numbers of needs, so that different tables have different sums.
func hash(need int) uint64 {
	z := (uint64(need) + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// needName is the name of a need, and numberIn finds the first one in a text.
const namePrefix, nameDigits = `"need-`, 6

func needName(n int) string { return fmt.Sprintf("need-%0*d", nameDigits, n) }

func numberIn(text []byte) (int, bool) {
	at := bytes.Index(text, []byte(namePrefix))
	if at < 0 || len(text) < at+len(namePrefix)+nameDigits {
		return 0, false
	}
	n, err := strconv.Atoi(string(text[at+len(namePrefix):][:nameDigits]))
	return n, err == nil
}

// newSimulated is agent number i of a crowd, which is not connected yet.
func newSimulated(c *crowd, i int) *simulated {
	a := &simulated{crowd: c, number: i, pending: map[string]func(wire.Unit){}, attempts: map[int]*attempt{}}
	for which, schema := range []*table.Schema{table.Needs, table.Services} {
		a.tables[which] = &followed{read: make(chan struct{})}
		if i < c.mirrors {
			a.tables[which].mirror = table.NewMirror(schema)
		}
	}
	return a
}

// connect has the agent introduce itself and read the tables.
func (a *simulated) connect(ctx context.Context) error {
	ip := net.IPv4(127, 1, byte(a.number/250), byte(a.number%250+1))
	listener, err := net.Listen("tcp", net.JoinHostPort(ip.String(), "0"))
	if err != nil {
		return err
	}
	conn, err := wire.Dial(ctx, "ws://"+a.crowd.address+"/", wire.DialOptions{LocalIP: ip})
	if err != nil {
		listener.Close()
		return err
	}
	a.mu.Lock()
	a.listener, a.conn = listener, conn
	a.mu.Unlock()
	a.crowd.tasks.Go(a.accept)
	a.crowd.tasks.Go(func() { a.crowd.lost(a, a.receive()) })
	return a.introduce(ctx)
}

// close ends the agent, if it is connected.
func (a *simulated) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		a.listener.Close()
		a.conn.Close()
	}
}

// accept is what all services of the agent are: a port on which somebody listens.
func (a *simulated) accept() {
	for {
		conn, err := a.listener.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

// receive reads until the connection ends.
func (a *simulated) receive() error {
	for {
		texts, err := a.conn.Read()
		if err != nil {
			return err
		}
		now := time.Now()
		for _, text := range texts {
			if rest, ok := bytes.CutPrefix(text, []byte(`["n","`)); ok && len(rest) > 5 && rest[1] == '"' {
				err = a.item(int(rest[0]-'0'), rest[3:len(rest)-1], now)
			} else {
				err = a.unit(text)
			}
			if err != nil {
				return err
			}
		}
	}
}

// item takes an item of a query: ["c",{...}].
func (a *simulated) item(which int, item []byte, now time.Time) error {
	kind := item[2]
	f := a.tables[which]
	if f.mirror != nil {
		if _, err := f.mirror.Apply(item); err != nil {
			return err
		}
	}
	switch string(item[2:4]) {
	case "i\"", "rb":
		return nil
	case "re":
		close(f.read)
		return nil
	}
	n, ok := numberIn(item)
	if !ok {
		return fmt.Errorf("an item without a need: %s", item)
	}
	f.items[kind]++
	switch kind {
	case 'r', 'c':
		f.sum += hash(n)
		f.length.Add(1)
	case 'd':
		f.sum -= hash(n)
		f.length.Add(-1)
	}
	a.crowd.seen(a, which, kind, n, now)
	if which == needsTable && kind != 'u' && a.shares(n) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if kind == 'd' {
			delete(a.attempts, n) // somebody has it
		} else {
			a.queue = append(a.queue, n)
		}
		a.bidMore()
	}
	return nil
}

// shares tells for which needs the agent bids: every need has two bidders.
func (a *simulated) shares(n int) bool {
	agents := len(a.crowd.agents)
	return n < a.crowd.needs && (n%agents == a.number || (n+1)%agents == a.number)
}

// unit takes a unit that is no item.
func (a *simulated) unit(text []byte) error {
	u, err := wire.ParseReply(text, wire.Limits{})
	if err != nil {
		return err
	}
	switch u.Kind {
	case wire.Resolve:
		a.mu.Lock()
		defer a.mu.Unlock()
		if answered := a.pending[u.ID]; answered != nil {
			delete(a.pending, u.ID)
			answered(u)
		}
		a.bidMore()
		return nil
	case wire.OutOfBand, wire.Forget, wire.Pong:
		return nil // states, and the ends of sessions on needs, which a "d" has told before
	}
	return fmt.Errorf("an answer that nobody expects: %s", text)
}

// call adds a call to units and has its answer taken; nil: nobody wants it.
func (a *simulated) call(units [][]byte, u wire.Unit, answered func(wire.Unit)) [][]byte {
	if u.ID == "" {
		a.lastID++
		u.ID = "c" + strconv.Itoa(a.lastID)
	}
	if answered != nil {
		a.pending[u.ID] = answered
	}
	return append(units, u.AppendJSON(nil))
}

// write sends a unit that is not answered, if the agent is connected.
func (a *simulated) write(u wire.Unit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		_ = a.conn.Write([][]byte{u.AppendJSON(nil)})
	}
}

func request(session, target, method string, args ...any) wire.Unit {
	u := wire.Unit{Kind: wire.Call, Session: session, Target: target, Method: method, Args: []json.RawMessage{}}
	for _, arg := range args {
		text, _ := json.Marshal(arg) // strings, numbers and maps of them
		u.Args = append(u.Args, text)
	}
	return u
}

// ask calls and waits for the answer.
func (a *simulated) ask(ctx context.Context, u wire.Unit) (json.RawMessage, error) {
	answer := make(chan json.RawMessage, 1)
	a.mu.Lock()
	_ = a.conn.Write(a.call(nil, u, func(u wire.Unit) { answer <- bytes.Clone(u.Value) }))
	a.mu.Unlock()
	select {
	case value := <-answer:
		return value, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// sessionIn is the session of an introduction, or of a subConnect.
func sessionIn(value json.RawMessage) string {
	var v struct {
		Session   string
		Introduce struct{ Session string }
	}
	_ = json.Unmarshal(value, &v)
	return v.Session + v.Introduce.Session
}

func (a *simulated) introduce(ctx context.Context) error {
	credentials := fmt.Appendf(nil, `{"ip":{"name":"machine-%d","role":"user","id":"agent-%d"}}`, a.number, a.number)
	lan, err := a.ask(ctx, wire.Unit{Kind: wire.Introduce, Credentials: credentials})
	if err != nil {
		return err
	}
	if a.lan = sessionIn(lan); a.lan == "" {
		return errors.New("the introduction was not answered with a session")
	}
	for which, name := range followedNames {
		sub, err := a.ask(ctx, request(a.lan, wire.Protocol, "subConnect", name, map[string]string{"role": "user"}))
		if err != nil {
			return err
		}
		session := sessionIn(sub)
		if which == needsTable {
			a.needs = session
		}
		query := request(session, wire.Protocol, "query", map[string]bool{"continuous": true})
		query.ID = strconv.Itoa(which)
		a.write(query)
	}
	for _, f := range a.tables {
		select {
		case <-f.read:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// begin has the agent bid from now on.
func (a *simulated) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bidMore()
}

// bidMore begins as many bids as there may be. The mutex is held.
func (a *simulated) bidMore() {
	if !a.crowd.bidding.Load() {
		return
	}
	var units [][]byte
	for len(a.queue) > 0 && len(a.attempts) < bidsAtOnce {
		n := a.queue[0]
		a.queue = a.queue[1:]
		t := &attempt{}
		a.attempts[n] = t
		units = a.call(units, request(a.needs, wire.Protocol, "subConnect", needName(n), map[string]string{}), func(u wire.Unit) { a.bid(n, t, u) })
	}
	if units != nil {
		_ = a.conn.Write(units)
	}
}

// bid goes on when the session on the need is there. Like agent/link it lets
// the introduction, its confirmation and the bid travel together.
func (a *simulated) bid(n int, t *attempt, answer wire.Unit) {
	if a.attempts[n] != t {
		return
	}
	t.session = sessionIn(answer.Value)
	units := a.call(nil, wire.Unit{Kind: wire.Introduce, Session: t.session}, nil)
	units = a.call(units, request(t.session, wire.Protocol, "confirmReservation"), nil)
	units = a.call(units, request(t.session, wire.Protocol, "bid", map[string]string{}), func(u wire.Unit) { a.respond(n, t, u) })
	_ = a.conn.Write(units)
}

func (a *simulated) respond(n int, t *attempt, answer wire.Unit) {
	var challenge struct{ Bid string }
	if a.attempts[n] != t || json.Unmarshal(answer.Value, &challenge) != nil {
		return
	}
	record := map[string]any{"instancename": needName(n), "pid": 1000 + n, "tcpport": a.listener.Addr().(*net.TCPAddr).Port, "httpport": nil, "wsport": nil}
	_ = a.conn.Write(a.call(nil, request(t.session, wire.Protocol, "respond", challenge.Bid, record), func(wire.Unit) {
		a.crowd.owner[n].Store(int32(a.number))
		a.crowd.accepted[n].Add(1)
		delete(a.attempts, n)
	}))
}
