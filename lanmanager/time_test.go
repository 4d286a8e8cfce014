package lanmanager

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/allexgo/machine-agent/lan/wire"
)

// pipe is one end of a connection in memory, so that time can be tested.
type pipe struct {
	address  string
	in, out  chan [][]byte
	closed   chan struct{} // of both ends
	close    func()
	mu       sync.Mutex
	deadline time.Time
}

func newPipe(address string) (ours, theirs *pipe) {
	a, b, closed := make(chan [][]byte), make(chan [][]byte), make(chan struct{})
	end := sync.OnceFunc(func() { close(closed) })
	return &pipe{address: address, in: a, out: b, closed: closed, close: end},
		&pipe{address: address, in: b, out: a, closed: closed, close: end}
}

func (p *pipe) Read() ([][]byte, error) {
	p.mu.Lock()
	var late <-chan time.Time
	if !p.deadline.IsZero() {
		late = time.After(time.Until(p.deadline))
	}
	p.mu.Unlock()
	select {
	case texts := <-p.in:
		return texts, nil
	case <-late:
		return nil, os.ErrDeadlineExceeded
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipe) Write(units [][]byte) error {
	texts := [][]byte{}
	for _, u := range units {
		texts = append(texts, append([]byte(nil), u...))
	}
	select {
	case p.out <- texts:
		return nil
	case <-p.closed:
		return net.ErrClosed
	}
}

func (p *pipe) Close() error { p.close(); return nil }

func (p *pipe) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = t
	return nil
}

func (p *pipe) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(p.address), Port: 1} }
func (p *pipe) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2} }

// timed is a LAN manager whose peers are pipes, in a bubble.
type timed struct {
	t *testing.T
	m *Manager
}

func inTime(t *testing.T, needs string, test func(*timed)) {
	directory := t.TempDir()
	writeFile(t, directory, "needs", needs)
	synctest.Test(t, func(t *testing.T) {
		m, err := New(Config{Directory: directory, Listeners: at("")})
		if err != nil {
			t.Fatal(err)
		}
		defer m.files.close()
		worked := make(chan struct{})
		go func() {
			defer close(worked)
			m.work()
		}()
		defer func() {
			m.crew.dismiss(nil)
			<-worked
			m.crew.tasks.Wait()
		}()
		test(&timed{t, m})
	})
}

func (x *timed) dial(from string) *peer {
	ours, theirs := newPipe(from)
	x.m.take(theirs, WebSocket, "")
	p := &peer{t: x.t, conn: ours, changed: make(chan struct{})}
	go p.read()
	return p
}

// inside has f done by the core.
func (x *timed) inside(f func()) {
	x.t.Helper()
	if err := x.m.crew.ask(context.Background(), f); err != nil {
		x.t.Fatal(err)
	}
}

func (x *timed) agent(id, from string) *agent { return newAgent(x.dial(from), id) }

// sessionEnded tells whether a session was ended by the LAN manager up to now.
func (p *peer) sessionEnded(session string) bool {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.units {
		if u.Kind == wire.OutOfBand && u.Session == session && u.Channel == wire.EndChannel {
			return true
		}
	}
	return false
}

// answered tells whether a call was answered up to now.
func (p *peer) answered(id string) bool {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.units {
		if isAnswer(id)(u) {
			return true
		}
	}
	return false
}

func TestBidIsTakenBack(t *testing.T) {
	for _, c := range []struct {
		name, timeout string
		want          time.Duration
	}{
		{"as the need says", `,"timeout":7`, 7 * time.Second},
		{"by default", ``, time.Minute},
		{"nonsense", `,"timeout":-5`, time.Minute},
		{"too much", `,"timeout":1e15`, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			inTime(t, `[{"instancename":"A"`+c.timeout+`}]`, func(x *timed) {
				one, two := x.agent("one", "127.0.0.1"), x.agent("two", "127.0.0.2")
				keepAlive(one.peer, two.peer)
				first, second := one.on("A"), two.on("A")
				ticket := one.bid(first)
				waiting := two.begin(second, "!", "bid", map[string]string{})
				time.Sleep(c.want - time.Millisecond)
				if one.sessionEnded(first) || two.answered(waiting) {
					t.Error("the bid is taken back too early")
				}
				time.Sleep(time.Millisecond)
				if !one.sessionEnded(first) || !two.answered(waiting) {
					t.Error("the bid is not taken back")
				}
				one.send(fmt.Sprintf(`["r",["%s",null],["!",["respond",["%s",{"pid":1,"tcpport":1}]]]]`, first, ticket))
				one.find("f", func(u wire.Unit) bool { return u.Kind == wire.Forget })
				// The next one has all of its time, and a new bid of the first too.
				time.Sleep(c.want - time.Millisecond)
				if two.sessionEnded(second) {
					t.Error("the second bid is taken back too early")
				}
				time.Sleep(time.Millisecond)
				one.bid(one.on("A"))
			})
		})
	}
}

// A response that is being checked when the time is over keeps its chance.
func TestBidExpiresDuringPortCheck(t *testing.T) {
	inTime(t, `[{"instancename":"A","timeout":5}]`, func(x *timed) {
		one := x.agent("one", "127.0.0.1")
		keepAlive(one.peer)
		first := one.on("A")
		ticket := one.bid(first)
		time.Sleep(5*time.Second - 1)
		occupy := func(n int) { // so that the check has to wait
			x.inside(func() {
				p := x.m.lan.parties[owner{id: "one"}]
				p.checks.running += n
				x.m.lan.checks.queue(p)
				x.m.lan.checks.start()
			})
		}
		occupy(checksOfParty)
		id := one.begin(first, "!", "respond", ticket, map[string]int{"pid": 1})
		time.Sleep(time.Second)
		if one.sessionEnded(first) || one.answered(id) {
			t.Error("the response does not keep its chance")
		}
		occupy(-1)
		if u := one.answer(id); u.Code != "NO_PORTS_REACHABLE" {
			t.Errorf("response without ports: %s", u.AppendJSON(nil))
		}
		if !one.sessionEnded(first) {
			t.Error("the bid outlives its time")
		}
	})
}

// An original that has won hears of the end of its session a little later, an
// agent at once. It has ended for both.
func TestFarewell(t *testing.T) {
	port := listener(t)
	for id, want := range map[string]time.Duration{"": farewell, "agent": 0} {
		inTime(t, `[{"instancename":"A"}]`, func(x *timed) {
			one := x.agent(id, "127.0.0.1")
			session := one.on("A")
			ticket := one.bid(session)
			if u := one.call(session, "!", "respond", ticket, map[string]int{"pid": 1, "tcpport": port}); u.Kind != wire.Resolve {
				t.Fatalf("response: %s", u.AppendJSON(nil))
			}
			if want > 0 {
				time.Sleep(want - 1)
				if one.sessionEnded(session) {
					t.Errorf("id %q: told after less than %s", id, want)
				}
				one.send(`["late",["` + session + `",null],["!",["die",[]]]]`)
				one.find("f", func(u wire.Unit) bool { return u.Kind == wire.Forget })
				time.Sleep(1)
			}
			if !one.sessionEnded(session) {
				t.Errorf("id %q: not told after %s", id, want)
			}
		})
	}
}

func TestSessionsWithID(t *testing.T) {
	port := listener(t)
	inTime(t, `[{"instancename":"A"},{"instancename":"B"},{"instancename":"C"}]`, func(x *timed) {
		watcher := x.agent("watcher", "127.0.0.9")
		keepAlive(watcher.peer)
		one := x.agent("one", "127.0.0.1")
		one.serveAll(port, "A", "B")
		x.agent("two", "127.0.0.1").serveAll(port, "C")

		// Another session of the same address or the same id wipes nothing.
		x.dial("127.0.0.1").introduce("")
		again := x.agent("one", "127.0.0.1")
		watcher.soon(watcher.services, "A", "B", "C")
		// What it does not confirm goes, what is another's it can not confirm.
		if got := again.keep(again.lan, "A", "C", "nothing"); got != `{"kept":["A"]}` {
			t.Errorf("keepServices: %s", got)
		}
		time.Sleep(6 * time.Second)
		watcher.soon(watcher.services, "A", "C")
		watcher.soon(watcher.needs, "B")

		// The loss of one of two sessions is nothing; that of the last one begins the grace.
		one.conn.Close()
		time.Sleep(6 * time.Second)
		watcher.soon(watcher.services, "A", "C")
		again.conn.Close()
		back := x.agent("one", "127.0.0.1")
		if got := back.keep(back.lan, "A"); got != `{"kept":["A"]}` {
			t.Errorf("keepServices after the return: %s", got)
		}
		back.serveAll(port, "B")
		back.conn.Close()
		time.Sleep(6 * time.Second)
		watcher.soon(watcher.services, "C")
	})
}

// serving is a LAN in which agent one serves the needs A and B, and watcher sees it.
func serving(t *testing.T, do func(x *timed, watcher, one *agent)) {
	port := listener(t)
	inTime(t, `[{"instancename":"A"},{"instancename":"B"}]`, func(x *timed) {
		watcher := x.agent("watcher", "127.0.0.9")
		keepAlive(watcher.peer)
		one := x.agent("one", "127.0.0.1")
		one.serveAll(port, "A", "B")
		do(x, watcher, one)
	})
}

func TestGrace(t *testing.T) {
	serving(t, func(x *timed, watcher, one *agent) {
		one.conn.Close()
		time.Sleep(5*time.Second - time.Millisecond)
		if got := watcher.names(watcher.services); len(got) != 2 {
			t.Errorf("services before the grace is over: %v", got)
		}
		one = x.agent("one", "127.0.0.1") // just in time
		keepAlive(one.peer)
		one.keep(one.lan, "A") // the grace begins anew
		time.Sleep(5*time.Second - time.Millisecond)
		if got := watcher.names(watcher.services); len(got) != 2 {
			t.Errorf("services before the grace of what was not confirmed is over: %v", got)
		}
		one.keep(one.lan) // it does not begin once more
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := watcher.names(watcher.services); fmt.Sprint(got) != "[A]" {
			t.Errorf("services after the grace: %v", got)
		}
		one.call(one.lan, "!", "die")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := watcher.names(watcher.services); len(got) != 0 {
			t.Errorf("services after the loss: %v", got)
		}
		x.m.crew.post(func() {
			if n := len(x.m.lan.parties); n != 1 {
				t.Errorf("%d parties are remembered, want the watcher only", n)
			}
		})
	})
}

// An agent that is connected and reads the tables is not gone, however long it
// takes, but for ever nobody waits.
func TestConnectedAgentHasTimeToConfirm(t *testing.T) {
	serving(t, func(x *timed, watcher, one *agent) {
		have := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := fmt.Sprint(watcher.names(watcher.services)); got != want {
				t.Errorf("services: %s, want %s", got, want)
			}
		}
		back := func() {
			one.conn.Close()
			one = x.agent("one", "127.0.0.1")
			keepAlive(one.peer)
		}
		back()
		time.Sleep(time.Minute - time.Millisecond)
		if got := one.keep(one.lan, "A", "B"); got != `{"kept":["A","B"]}` {
			t.Errorf("keepServices: %s", got)
		}
		time.Sleep(time.Hour)
		have("[A B]")

		back()
		time.Sleep(time.Minute - 2*time.Second)
		one.keep(one.lan, "A")
		time.Sleep(2*time.Second - time.Millisecond)
		have("[A B]")
		time.Sleep(time.Millisecond) // its minute is over before the grace
		have("[A]")

		back()
		time.Sleep(time.Minute - time.Millisecond)
		have("[A]")
		time.Sleep(time.Millisecond)
		have("[]")
	})
}

func TestSilence(t *testing.T) {
	inTime(t, `[]`, func(x *timed) {
		silent, pinging := x.dial("127.0.0.1"), x.dial("127.0.0.2")
		keepAlive(pinging)
		time.Sleep(20*time.Second - time.Millisecond)
		if silent.isGone() {
			t.Error("a silent connection is closed too early")
		}
		time.Sleep(time.Millisecond)
		if !silent.isGone() || pinging.isGone() {
			t.Errorf("silent gone: %t; pinging gone: %t", silent.isGone(), pinging.isGone())
		}
	})
}

// isGone tells whether the connection has ended up to now.
func (p *peer) isGone() bool {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended != nil
}

// keepAlive pings as clients do, until the connections end.
func keepAlive(peers ...*peer) {
	for _, p := range peers {
		go func() {
			for n := 0; ; n++ {
				if err := p.conn.Write([][]byte{fmt.Appendf(nil, `["?",%d]`, n)}); errors.Is(err, net.ErrClosed) {
					return
				}
				select {
				case <-time.After(10 * time.Second):
				case <-p.conn.(*pipe).closed:
					return
				}
			}
		}()
	}
}
