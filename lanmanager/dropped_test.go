package lanmanager

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/allexgo/machine-agent/lan/wire"
)

// Who is dropped when, as the LAN manager sees it: the lines of that table in
// docs/lan-protocol.md by their names. Agent/link has those of the other side.
func TestDropped(t *testing.T) {
	for name, test := range map[string]func(*scene){
		"half-open agent":                        (*scene).halfOpenAgent,
		"half-open agent is back in time":        (*scene).agentBackInTime,
		"half-open agent is back from elsewhere": (*scene).agentBackFromElsewhere,
		"half-open agent is back after a minute": (*scene).agentBackLate,
		"half-open original":                     (*scene).halfOpenOriginal,
		"half-open original is back":             (*scene).originalBack,
		"connection of an agent ends":            (*scene).agentEnds,
		"connection of an original ends":         (*scene).originalEnds,
		"proxy stalls for 9 s":                   (*scene).shortStall,
		"proxy stalls for 30 s":                  (*scene).longStall,
		"peer's clock jumps":                     (*scene).peersClock,
		"peer sends what is no unit, but sends":  (*scene).noUnits,
	} {
		t.Run(name, func(t *testing.T) {
			port := listener(t)
			inTime(t, `[{"instancename":"A"}]`, func(x *timed) {
				s := &scene{timed: x, port: port, watcher: x.agent("watcher", "127.0.0.9"), began: time.Now()}
				keepAlive(s.watcher.peer)
				test(s)
			})
		})
	}
}

// scene is a LAN manager with one need and somebody who watches.
type scene struct {
	*timed
	port    int
	watcher *agent
	began   time.Time
}

const (
	mute = 20 * time.Second // when a silent connection is closed
	late = 5 * time.Second  // the grace
	tick = time.Millisecond
)

// at goes on to so long after the beginning, and checks the services.
func (s *scene) at(after time.Duration, services ...string) {
	s.t.Helper()
	time.Sleep(time.Until(s.began.Add(after)))
	synctest.Wait()
	if got := s.watcher.names(s.watcher.services); !slices.Equal(got, services) {
		s.t.Errorf("after %s the services are %v, want %v", after, got, services)
	}
}

// open checks that a connection is still there, and closed that it is not.
func (s *scene) open(a *agent) {
	s.t.Helper()
	if a.isGone() {
		s.t.Errorf("after %s the connection is closed", time.Since(s.began))
	}
}

func (s *scene) closed(a *agent) {
	s.t.Helper()
	if !a.isGone() {
		s.t.Errorf("after %s the connection is open", time.Since(s.began))
	}
}

// serving is an agent, or an original without id, that serves the need.
func (s *scene) serving(id string) *agent {
	a := s.agent(id, "127.0.0.1")
	a.serveAll(s.port, "A")
	return a
}

func (s *scene) halfOpenAgent() {
	a := s.serving("one")
	s.at(mute-tick, "A")
	s.open(a)
	s.at(mute, "A")
	s.closed(a)
	s.at(mute+late-tick, "A")
	s.at(mute + late)
}

func (s *scene) agentBackInTime() {
	old := s.serving("one")
	s.at(8*time.Second, "A")
	back := s.agent("one", "127.0.0.1")
	keepAlive(back.peer)
	s.at(mute-tick, "A")
	s.open(old)
	s.at(mute, "A")
	s.closed(old)
	s.at(8*time.Second+time.Minute-tick, "A")
	back.keep(back.lan, "A")
	s.at(2*time.Minute, "A")
	s.open(back)
}

// An address that changes, as with DHCP, looks like two machines with one id.
func (s *scene) agentBackFromElsewhere() {
	s.serving("one")
	s.at(mute-tick, "A")
	if u := s.dial("127.0.0.2").tryIntroduce("one"); u.Kind != wire.Reject || u.Code != "ID_IN_USE" {
		s.t.Errorf("introduction while the old connection is there: %s", u.AppendJSON(nil))
	}
	s.at(mute, "A")
	back := s.agent("one", "127.0.0.2")
	keepAlive(back.peer)
	back.keep(back.lan, "A")
	s.at(time.Minute, "A")
}

func (s *scene) agentBackLate() {
	s.serving("one")
	s.at(time.Minute)
	s.serving("one")
	s.at(time.Minute, "A")
}

func (s *scene) halfOpenOriginal() {
	a := s.serving("")
	s.at(mute-tick, "A")
	s.open(a)
	s.at(mute)
	s.closed(a)
}

// The services of an original go when it is back, and stay when its old
// connection is closed.
func (s *scene) originalBack() {
	old := s.serving("")
	s.at(8*time.Second, "A")
	back := s.agent("", "127.0.0.1")
	keepAlive(back.peer)
	s.at(8 * time.Second)
	back.serveAll(s.port, "A")
	s.at(mute, "A")
	s.closed(old)
	s.at(time.Minute, "A")
}

func (s *scene) agentEnds() {
	s.serving("one").conn.Close()
	s.at(late-tick, "A")
	s.at(late)
}

func (s *scene) originalEnds() {
	s.serving("").conn.Close()
	s.at(0)
}

// stalled is a peer's end of a connection through a proxy. While that stalls
// nothing arrives at the LAN manager; what was sent arrives after that, if
// anybody is still there.
type stalled struct {
	*pipe
	mu    sync.Mutex
	until time.Time
}

func (p *stalled) stall(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = time.Now().Add(d)
}

func (p *stalled) wait() {
	p.mu.Lock()
	left := time.Until(p.until)
	p.mu.Unlock()
	select {
	case <-time.After(left):
	case <-p.pipe.closed:
	}
}

func (p *stalled) Write(units [][]byte) error { p.wait(); return p.pipe.Write(units) }

// through is an agent, or an original, that serves the need behind a proxy and
// pings as clients do.
func (s *scene) through(id, from string) (*agent, *stalled) {
	ours, theirs := newPipe(from)
	proxy := &stalled{pipe: ours}
	s.m.take(theirs, WebSocket, "")
	p := &peer{t: s.t, conn: proxy, changed: make(chan struct{})}
	go p.read()
	a := newAgent(p, id)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-time.After(10 * time.Second):
			case <-ours.closed:
				return
			}
			if proxy.Write([][]byte{fmt.Appendf(nil, `["?",%d]`, n)}) != nil {
				return
			}
		}
	}()
	return a, proxy
}

func (s *scene) shortStall() {
	one, proxy := s.through("one", "127.0.0.1")
	original, other := s.through("", "127.0.0.2")
	one.serveAll(s.port, "A")
	s.at(time.Second, "A")
	for k := 1; k < 10; k++ { // again and again, at all distances from a ping
		proxy.stall(9 * time.Second)
		other.stall(9 * time.Second)
		s.at(time.Duration(k)*11*time.Second, "A")
	}
	s.open(one)
	s.open(original)
}

func (s *scene) longStall() {
	one, proxy := s.through("one", "127.0.0.1")
	original, other := s.through("", "127.0.0.2")
	one.serveAll(s.port, "A")
	s.at(10*time.Second, "A") // the last ping comes through
	proxy.stall(30 * time.Second)
	other.stall(30 * time.Second)
	s.at(10*time.Second+mute-tick, "A")
	s.open(one)
	s.open(original)
	s.at(10*time.Second+mute, "A")
	s.closed(one)
	s.closed(original)
	s.at(10*time.Second+mute+late-tick, "A")
	s.at(10*time.Second + mute + late)
	s.at(time.Minute)
	s.serving("one")
	s.at(time.Minute, "A")
}

// The number of a ping is the peer's time, which is nobody else's business.
func (s *scene) peersClock() {
	a := s.serving("one")
	for _, n := range []string{"5", "86400000", "-1", "1e300", "4"} {
		time.Sleep(15 * time.Second)
		a.send(`["?",` + n + `]`)
		a.find("pong", func(u wire.Unit) bool { return u.Kind == wire.Pong && string(u.Value) == n })
	}
	s.at(75*time.Second, "A")
	s.open(a)
}

// dated is a connection that looks at its deadlines: one with a monotonic
// reading does not move when the clock is set, nor do timers.
type dated struct {
	*pipe
	deadlines chan time.Time
}

func (p *dated) SetReadDeadline(t time.Time) error {
	select {
	case p.deadlines <- t:
	default:
	}
	return p.pipe.SetReadDeadline(t)
}

// TestClockIsSet: that the LAN manager's own clock jumps drops nobody. It is the
// one line without synthetic time, which has no clock that could be set.
func TestClockIsSet(t *testing.T) {
	m, err := New(Config{Directory: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var working sync.WaitGroup
	working.Go(m.work)
	_, theirs := newPipe("127.0.0.1")
	conn := &dated{theirs, make(chan time.Time, 1)}
	m.take(conn, WebSocket, "")
	if deadline := <-conn.deadlines; deadline == deadline.Round(0) {
		t.Errorf("the deadline %s moves with the clock", deadline)
	}
	m.crew.dismiss(nil)
	working.Wait()
	m.crew.tasks.Wait()
}

// Unlike an agent, the LAN manager takes whatever comes for a sign of life.
func (s *scene) noUnits() {
	a := s.serving("one")
	for range 5 {
		time.Sleep(mute - tick)
		a.send("rubbish")
	}
	s.at(5*(mute-tick), "A")
	s.open(a)
}
