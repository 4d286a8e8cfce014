package lanmanager

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// walk is a LAN manager whose core is the test itself, among clients that do
// anything at any time.
type walk struct {
	t       *rapid.T
	m       *Manager
	port    int
	clients []*walker
	mirrors map[string]*table.Mirror // of an onlooker, by the id of its query
	lastID  int
}

// walker is a client with what it has.
type walker struct {
	channel *wire.Channel
	lan     string
	needs   string
	on      []string          // sessions on needs
	tickets map[string]string // by session
	asked   map[string]string // session that a call is about, by its id
}

var walkNames = []string{"A", "B", "C"}

// Whatever clients do, a wanted need is either open or served, a need has one
// bid at most, a service has an owner who is there or may come back, and who
// follows the items knows the tables.
func TestWalk(t *testing.T) {
	port, directory := listener(t), t.TempDir()
	writeFile(t, directory, "needs", `[{"instancename":"A"},{"instancename":"B","timeout":10}]`)
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ rapid.TB }{t}, func(rt *rapid.T) { // no Deadline: a bubble has none
			m, err := New(Config{Directory: directory, Listeners: at("")})
			if err != nil {
				rt.Fatal(err)
			}
			m.lan.saver.files, m.lan.saver.broken = &files{}, errors.New("no disk on a walk")
			w := &walk{t: rt, m: m, port: port, mirrors: map[string]*table.Mirror{}}
			w.onlook()
			defer func() {
				m.crew.dismiss(nil)
				m.crew.tasks.Wait()
				m.files.close()
			}()
			rt.Repeat(map[string]func(*rapid.T){
				"connect":    func(*rapid.T) { w.connect() },
				"disconnect": func(*rapid.T) { w.with(w.disconnect) },
				"bid":        func(*rapid.T) { w.with(w.bid) },
				"respond":    func(*rapid.T) { w.with(w.respond) },
				"serve":      func(*rapid.T) { w.with(w.bid); w.with(w.respond) },
				"die":        func(*rapid.T) { w.with(w.die) },
				"call":       func(*rapid.T) { w.with(w.business) },
				"wait":       func(*rapid.T) { w.wait() },
				"":           func(*rapid.T) { w.check() },
			})
		})
	})
}

// settle does what came back from outside of the core.
func (w *walk) settle() {
	for {
		synctest.Wait()
		select {
		case f := <-w.m.crew.inbox:
			f()
		default:
			return
		}
	}
}

func (w *walk) with(do func(*walker)) {
	if len(w.clients) > 0 {
		do(rapid.SampledFrom(w.clients).Draw(w.t, "client"))
	}
}

func (w *walk) draw(label string, from ...string) string {
	return rapid.SampledFrom(from).Draw(w.t, label)
}

func (w *walk) connect() {
	if len(w.clients) == 4 {
		return
	}
	c := &walker{tickets: map[string]string{}, asked: map[string]string{}}
	peer := netip.MustParseAddr("127.0.0.1") // where the port is
	c.channel = w.m.gate.Open(peer, func(u wire.Unit) { w.hear(c, u) })
	w.m.lan.visitors[c.channel] = &visitor{address: peer, envelope: WebSocket}
	id := w.draw("id", "", "one", "two")
	c.lan, c.needs = "lan", "needs"
	w.say(c, wire.Unit{Kind: wire.Introduce, Session: c.lan,
		Credentials: marshal(map[string]any{"ip": map[string]string{"name": "x", "role": "user", "id": id}})}, "")
	w.call(c, c.lan, "!", "subConnect", "needs", map[string]string{})
	w.clients = append(w.clients, c)
}

// hear is what comes to a client: it notes sessions and tickets.
func (w *walk) hear(c *walker, u wire.Unit) {
	about := c.asked[u.ID]
	switch u.Kind {
	case wire.OutOfBand:
		if u.Channel == wire.EndChannel {
			c.on = slices.DeleteFunc(c.on, func(s string) bool { return s == u.Session })
			delete(c.tickets, u.Session)
		}
	case wire.Resolve:
		var v struct {
			Introduce struct{ Session string }
			Bid       string
		}
		_ = json.Unmarshal(u.Value, &v)
		switch {
		case v.Introduce.Session != "" && about == c.lan:
			c.needs = v.Introduce.Session
		case v.Introduce.Session != "":
			c.on = append(c.on, v.Introduce.Session)
		case v.Bid != "":
			c.tickets[about] = v.Bid
		}
	}
}

func (w *walk) say(c *walker, u wire.Unit, about string) {
	w.lastID++
	u.ID = fmt.Sprint(w.lastID)
	c.asked[u.ID] = about
	c.channel.Receive(u)
	w.settle()
}

func (w *walk) call(c *walker, session, target, method string, args ...any) {
	u := wire.Unit{Kind: wire.Call, Session: session, Target: target, Method: method}
	for _, arg := range args {
		u.Args = append(u.Args, marshal(arg))
	}
	w.say(c, u, session)
}

func (w *walk) disconnect(c *walker) {
	c.channel.Close()
	w.clients = slices.DeleteFunc(w.clients, func(other *walker) bool { return other == c })
	w.settle()
}

// bid bids on a need, by a session that the client has or by a new one.
func (w *walk) bid(c *walker) {
	if len(c.on) == 0 || rapid.Bool().Draw(w.t, "new session") {
		w.call(c, c.needs, "!", "subConnect", w.draw("need", walkNames...), map[string]string{})
	}
	if len(c.on) > 0 {
		w.call(c, w.draw("session", c.on...), "!", "bid", map[string]string{})
	}
}

// respond responds on a session with a ticket, if the client has one.
func (w *walk) respond(c *walker) {
	if with := slices.Sorted(maps.Keys(c.tickets)); len(with) > 0 {
		s := w.draw("session", with...)
		ports := []int{w.port, w.port, 0}
		w.call(c, s, "!", "respond", c.tickets[s],
			map[string]int{"pid": 1, "httpport": rapid.SampledFrom(ports).Draw(w.t, "port")})
	}
}

func (w *walk) die(c *walker) {
	w.call(c, w.draw("session", append(c.on, c.lan, c.needs)...), "!", "die")
}

func (w *walk) business(c *walker) {
	name := w.draw("name", walkNames...)
	switch method := w.draw("method", "notifyServiceDown", "removeNeed", "addNeed", "keepServices"); method {
	case "addNeed":
		w.call(c, c.lan, ".", method, map[string]string{"instancename": name})
	case "keepServices":
		w.call(c, c.lan, ".", method, []string{name})
	default:
		w.call(c, c.lan, ".", method, name)
	}
}

func (w *walk) wait() {
	time.Sleep(rapid.SampledFrom([]time.Duration{time.Second, 6 * time.Second, time.Minute}).Draw(w.t, "time"))
	w.settle()
}

// onlook follows the two tables without being anybody's party.
func (w *walk) onlook() {
	for schema, t := range map[*table.Schema]*table.Table{table.Needs: w.m.lan.needs, table.Services: w.m.lan.services} {
		mirror := table.NewMirror(schema)
		w.mirrors[schema.Name] = mirror
		t.Query(table.Query{Continuous: true}, func(item json.RawMessage) {
			if _, err := mirror.Apply(item); err != nil {
				w.t.Errorf("item %s: %v", item, err)
			}
		})
	}
}

func (w *walk) check() {
	l := w.m.lan
	for _, name := range walkNames {
		_, wanted := l.originals.record(name)
		_, open := l.needs.Get(name)
		_, served := l.services.Get(name)
		if open && served || open && !wanted || wanted && !open && !served {
			w.t.Fatalf("%s: wanted %t, open %t, served %t", name, wanted, open, served)
		}
		if (l.serving[name] != nil) != served || (l.open[name] != nil) != open {
			w.t.Fatalf("%s: serving %t, served %t; need %t, open %t", name, l.serving[name] != nil, served, l.open[name] != nil, open)
		}
	}
	for name, n := range l.open {
		w.checkBids(name, n)
	}
	w.checkParties()
	for name, t := range map[string]*table.Table{"needs": l.needs, "services": l.services} {
		if got, want := texts(w.mirrors[name].All()), texts(t.All()); !maps.Equal(got, want) {
			w.t.Fatalf("who follows %s knows %v, there is %v", name, got, want)
		}
	}
}

// checkParties looks whether services and their parties know of each other.
func (w *walk) checkParties() {
	l := w.m.lan
	for name, s := range l.serving {
		p := s.party
		if l.parties[p.owner] != p || p.services[name] != s {
			w.t.Fatalf("the service %s is of %s, who is not there, or does not know", name, p.owner)
		}
		if p.sessions == 0 && p.unconfirmed[name] != s {
			w.t.Fatalf("the service %s of %s would stay for ever", name, p.owner)
		}
	}
	machines, sessions := 0, 0
	for o, p := range l.parties {
		if p.owner != o || p.sessions == 0 && len(p.services) == 0 {
			w.t.Fatalf("the party %s is remembered for nothing", o)
		}
		for name, s := range p.services {
			if l.serving[name] != s {
				w.t.Fatalf("%s has the service %s, which is not there", o, name)
			}
		}
		for name, s := range p.unconfirmed {
			if p.services[name] != s {
				w.t.Fatalf("%s is unconfirmed by %s, who has it not", name, o)
			}
		}
		sessions += p.sessions
		if p.sessions > 0 {
			machines++
		}
	}
	if machines != l.machines || sessions != l.sessions {
		w.t.Fatalf("%d machines with %d sessions, counted as %d with %d", machines, sessions, l.machines, l.sessions)
	}
	waiting := 0
	for name, all := range l.waiting {
		if waiting += all.Len(); all.Len() == 0 || l.open[name] != nil {
			w.t.Fatalf("%d wait for %s", all.Len(), name)
		}
	}
	for _, c := range w.clients {
		waiting -= w.m.lan.visitors[c.channel].waiting
	}
	if waiting != 0 {
		w.t.Fatalf("%d who wait are not counted", waiting)
	}
}

func (w *walk) checkBids(name string, n *need) {
	if n.bid == nil && n.queue.Len() > 0 {
		w.t.Fatalf("%s is free and %d wait for it", name, n.queue.Len())
	}
	if n.bid != nil && !slices.Contains(n.bidders, n.bid.bidder) {
		w.t.Fatalf("%s is held by somebody who has left", name)
	}
	seen := map[*bidder]bool{}
	for i, b := range n.bidders {
		if b.index != i || b.need != n {
			w.t.Fatalf("%s has an odd bidder", name)
		}
	}
	for place := n.queue.Front(); place != nil; place = place.Next() {
		b := place.Value.(*bidder)
		if b.place != place || seen[b] || !slices.Contains(n.bidders, b) || n.bid.bidder == b || b.bid == nil {
			w.t.Fatalf("%s has an odd queue", name)
		}
		seen[b] = true
	}
}

// texts are the records of a table, without what is hidden from queries.
func texts(records func(func(string, table.Record) bool)) map[string]string {
	all := map[string]string{}
	for key, r := range records {
		var f fields
		_ = json.Unmarshal(r.JSON(), &f)
		delete(f, "created")
		all[key] = string(marshal(f))
	}
	return all
}
