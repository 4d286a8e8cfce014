package link

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/allexgo/machine-agent/lan/wire"
)

// Who is dropped when, as the agent sees it: the lines of that table in
// docs/lan-protocol.md by their names. Lanmanager has those of the other side.
func TestDropped(t *testing.T) {
	for name, test := range map[string]func(*way){
		"half-open LAN manager":     (*way).halfOpen,
		"connection ends":           (*way).ends,
		"LAN manager is suspended":  (*way).suspended,
		"proxy stalls for 9 s":      (*way).shortStall,
		"proxy stalls for 30 s":     (*way).longStall,
		"LAN manager's clock jumps": (*way).managersClock,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &way{t: t, m: &manager{t: t}, o: newOwner(), end: make(chan struct{})}
				l := New(config(w.o, "lan:23552"))
				l.dial = pipe(func(f frames) { w.m.serve(&delayed{f, w}) })
				run(t, l)
				t.Cleanup(func() { close(w.end) })
				expect[Up](t, w.o)
				w.began = time.Now()
				test(w)
			})
		})
	}
}

// way is the way to a LAN manager, on which what it sends can be held up.
type way struct {
	t     *testing.T
	m     *manager
	o     *owner
	began time.Time
	end   chan struct{}

	mu    sync.Mutex
	until time.Time // nothing arrives before
}

// delayed is the LAN manager's end of a connection on the way.
type delayed struct {
	frames
	way *way
}

func (d *delayed) write(frame string) error {
	d.way.mu.Lock()
	left := time.Until(d.way.until)
	d.way.mu.Unlock()
	select {
	case <-time.After(left):
	case <-d.way.end:
	}
	return d.frames.write(frame)
}

func (w *way) stall(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = time.Now().Add(d)
}

// down expects the loss of the session so long after the beginning, and says
// what for.
func (w *way) down(after time.Duration, says string) {
	w.t.Helper()
	got := expect[Down](w.t, w.o).Err.Error()
	if at := time.Since(w.began); at != after || !strings.Contains(got, says) {
		w.t.Errorf("lost after %s: %s; want %s: %s", at, got, after, says)
	}
}

// up expects a new session within so long.
func (w *way) up(within time.Duration) {
	w.t.Helper()
	lost := time.Now()
	for {
		switch e := w.o.next(w.t).(type) {
		case Up:
			if took := time.Since(lost); took > within {
				w.t.Errorf("up again after %s, want %s at most", took, within)
			}
			return
		case Down: // one more attempt in vain
		default:
			w.t.Fatalf("event %s came", show(e))
		}
	}
}

const (
	noWord = 20 * time.Second
	soon   = redialFirst * 5 / 4
)

// The LAN manager has gone without a word: the last one from it was at the
// beginning.
func (w *way) halfOpen() {
	w.stall(time.Hour)
	w.down(noWord, "no word from the LAN manager for 20s")
}

func (w *way) ends() {
	w.m.conn().close()
	w.down(0, "session with the LAN manager")
	w.up(soon)
}

// Whose machine has slept finds its connections closed by the others; for
// itself no time has passed.
func (w *way) suspended() {
	w.stall(time.Minute)
	w.down(noWord, "no word from the LAN manager for 20s")
	time.Sleep(time.Until(w.began.Add(time.Minute)))
	w.up(redialMost * 5 / 4)
}

func (w *way) shortStall() {
	for range 20 { // at all distances from a ping
		w.stall(9 * time.Second)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		w.o.none(w.t)
	}
}

// Behind a stall each attempt takes ten seconds, at its introduction; the first
// that is under way when the stall ends succeeds.
func (w *way) longStall() {
	w.stall(30 * time.Second)
	w.down(noWord, "no word from the LAN manager for 20s")
	w.up(30*time.Second - noWord + soon + redialMost*5/4)
}

// The LAN manager's pings and pongs have numbers; they mean nothing here.
func (w *way) managersClock() {
	w.stall(time.Hour) // so that nothing comes but this:
	for _, unit := range []string{`["!",-1]`, `["!",1e300]`, `["?",86400000]`, `["?",-5]`, `["!",0]`} {
		time.Sleep(19 * time.Second)
		if err := w.m.conn().frames.(*delayed).frames.write(unit); err != nil {
			w.t.Fatal(err)
		}
		synctest.Wait()
		w.o.none(w.t)
	}
	w.down(5*19*time.Second+noWord, "no word from the LAN manager for 20s")
}

// TestClockIsSet: that the agent's own clock jumps loses no session. It is the
// one line without synthetic time, which has no clock that could be set.
func TestClockIsSet(t *testing.T) {
	m, o := &manager{t: t}, newOwner()
	deadlines := make(chan time.Time, 1)
	l := New(config(o, "lan:23552"))
	dial := pipe(m.serve)
	l.dial = func(ctx context.Context, address string) (wire.Conn, error) {
		conn, err := dial(ctx, address)
		return &dated{conn, deadlines}, err
	}
	run(t, l)
	expect[Up](t, o)
	if deadline := <-deadlines; deadline == deadline.Round(0) {
		t.Errorf("the deadline %s moves with the clock", deadline)
	}
}

// dated is a connection that shows a deadline: one with a monotonic reading does
// not move when the clock is set, and neither do timers.
type dated struct {
	wire.Conn
	deadlines chan time.Time
}

func (d *dated) SetReadDeadline(t time.Time) error {
	select {
	case d.deadlines <- t:
	default:
	}
	return d.Conn.SetReadDeadline(t)
}
