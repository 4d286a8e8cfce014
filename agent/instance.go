package agent

import (
	"math/rand/v2"
	"time"

	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// instance is all that the loop knows of one name. It exists as long as there
// is a need, a record, a process or a hold of that name, and for a while after
// the end of a process: its ports and its back-off are of use to the next.
type instance struct {
	name string

	// What the LAN says, as far as the link has told.
	need    *table.Need    // open, and nobody has it yet
	service *table.Service // the LAN's record

	// What we do about it.
	child     *child
	bid       *bid
	road      road
	held      bool
	rejected  bool            // the LAN manager found our address unfit for the need
	reported  bool            // the record has been reported down and is about to go
	idleSince time.Time       // since when it is idle; zero: it is not
	reopens   time.Time       // until then the need is expected to open again, after a process of ours has ended
	touched   bool            // it is shown anew at the end of this turn of the loop
	answered  <-chan struct{} // closed when nothing of the last report is awaited; nil: there was none
	backoff   backoff
	thefts    int // in a row, of ports of processes that were not ready
	rebid     pause
	shortage  pause
	queued    bool // stands in the loop's queue
	occupied  bool // counts in loop.occupied
	housed    bool // counts in loop.housed
	inFlight  bool // counts in loop.inFlight
	begun     bool // counts in loop.begun
	wake      *time.Timer
	wakeAt    time.Time
	orphan    *time.Timer

	// What was before.
	ghost      *table.Ports // of a process that is gone and may still be on the LAN's table
	lastPorts  table.Ports
	lastExit   *process.Exit
	lastReason string
	lastModule string
	lastEnd    time.Time
	missed     time.Time // since when a process that was offered is gone; zero once another is in its place
}

// remembered is how long an instance is known after its process has ended and
// nobody asks for it any more.
const remembered = 10 * time.Minute

// bid is an offer that is out.
type bid struct {
	*link.Bid
	need       *table.Need // that was answered for
	pending    bool        // not answered for long; most likely behind another bidder
	challenged bool
	responded  bool
}

// child is a process as the loop sees it.
type child struct {
	*keeper
	module  *module.Module // nil for an outside process without one
	origin  Origin
	state   process.State
	ports   table.Ports
	ready   time.Time // since when; zero if it is not
	start   time.Time
	status  string
	reason  string        // why it is made to end
	exit    *process.Exit // how it ended; nil while it lives
	planned bool          // its end is nobody's failure
	offered bool          // the LAN manager was told of it, so it may be on the table
	unwell  bool          // it is withdrawn until it answers its health check again
	drained bool          // it is withdrawn until the machine is resumed

	stopping  bool // it said that it stops
	reloading bool // it said that it reads its configuration again
}

// live tells whether the instance has a process whose leader has not ended.
func (i *instance) live() bool {
	return i.child != nil && i.child.state != process.Emptying
}

// ready tells whether the instance has a process that can be offered.
func (i *instance) ready() bool {
	return i.child != nil && i.child.state == process.Ready
}

// unwell tells whether the instance has a process that is withdrawn until it is
// well again.
func (i *instance) unwell() bool {
	return i.child != nil && i.child.state == process.Withdrawn && i.child.unwell
}

// serving tells whether the process may stand on the LAN's table.
func (i *instance) serving() bool {
	return i.child != nil && (i.child.state == process.Ready || i.child.state == process.Starting)
}

// occupies tells whether the instance takes one of maxprocesses.
func (i *instance) occupies() bool {
	if i.child != nil {
		return i.child.origin != Outside
	}
	return i.bid != nil && !i.bid.pending
}

// starting tells whether the instance takes one of the starts in flight.
func (i *instance) starting() bool {
	if i.ready() {
		return false // a running process is offered, nothing is started
	}
	return i.child != nil && i.child.state == process.Starting || i.bid != nil && !i.bid.pending
}

// asked tells whether there is a need, or something else to decide on.
func (i *instance) asked() bool {
	return i.need != nil || i.service != nil || i.held || i.bid != nil
}

// idle tells whether nobody asks for the instance and nothing of it is here.
func (i *instance) idle() bool {
	return i.need == nil && i.service == nil && i.child == nil && i.bid == nil && !i.held && !i.queued
}

// pid is 0 before the start.
func (c *child) pid() int {
	if c.process == nil {
		return 0
	}
	return c.process.Main().PID
}

// backoff makes an instance wait that ends too soon (design section 4.5).
type backoff struct {
	failures int       // in a row without a healthy while
	since    time.Time // of the first of them
	until    time.Time
}

// ended takes note of an end, healthyFor after the process had become ready; 0
// if it never was. An end after a healthy while costs nothing; the k-th other
// one in a row costs initial times 2^(k-1), at most max, spread by a quarter.
func (b *backoff) ended(now time.Time, healthyFor time.Duration, rules module.Backoff) {
	initial := rules.Initial
	switch {
	case healthyFor == 0:
		initial = max(initial, unreadyInitial)
	case healthyFor >= rules.Reset:
		*b = backoff{}
		return
	}
	if b.failures++; b.failures == 1 {
		b.since = now
	}
	b.until = now.Add(spread(doubled(initial, b.failures-1, rules.Max)))
}

// unreadyInitial is the least initial wait after a process that never became
// ready or could not be started. Without it a module with an initial of 0, which
// is good for quick replacements, would keep this machine and the LAN manager
// busy with what can not succeed.
const unreadyInitial = 100 * time.Millisecond

// pause makes the next bid for an instance wait after one that led to nothing, or for
// the machine to have what a start needs.
type pause struct {
	times  int
	until  time.Time
	reason string
}

const (
	rebidFirst = 250 * time.Millisecond
	rebidMost  = 5 * time.Second
)

func (p *pause) add(now time.Time, reason string) {
	p.until = now.Add(spread(doubled(rebidFirst, p.times, rebidMost)))
	p.times++
	p.reason = reason
}

// doubled is d doubled n times, at most the given.
func doubled(d time.Duration, n int, most time.Duration) time.Duration {
	for ; n > 0 && d < most; n-- {
		d *= 2
	}
	return min(d, most)
}

// spread moves d by up to a quarter, so that what failed together does not
// come back together.
func spread(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d*3/4 + rand.N(d/2+1)
}
