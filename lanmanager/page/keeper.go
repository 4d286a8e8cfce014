package page

import (
	"context"
	"errors"
	"sync"
	"time"
)

// pace is the least time between two snapshots, however many look.
const pace = 250 * time.Millisecond

var errClosed = errors.New("the LAN manager is about to end")

// keeper has snapshots made: one at a time, when somebody asks and the last one
// is no longer current. One is current until the revision moves, and for the
// pace in any case.
type keeper struct {
	source Source
	ctx    context.Context // of run
	asks   chan *answer    // has room for the one that run does not have yet

	mu      sync.Mutex
	current *answer // nil before the first
}

// answer is a snapshot that was asked for. The keeper sets its fields before it
// closes ready, and lapses it when it is no longer current.
type answer struct {
	moment *moment
	err    error
	made   time.Time
	ready  chan struct{}
	valid  context.Context
	lapse  context.CancelFunc
}

func newKeeper(ctx context.Context, s Source) *keeper {
	return &keeper{source: s, ctx: ctx, asks: make(chan *answer, 1)}
}

func (k *keeper) run() {
	for {
		select {
		case <-k.ctx.Done():
			return
		case a := <-k.asks:
			if k.ctx.Err() == nil {
				k.serve(a)
			}
		}
	}
}

func (k *keeper) serve(a *answer) {
	defer a.lapse()
	snapshot, err := k.source.Snapshot(k.ctx)
	a.made, a.err = time.Now(), err
	if err == nil {
		a.moment = newMoment(snapshot)
	}
	close(a.ready)
	timer := time.NewTimer(pace)
	defer timer.Stop()
	select {
	case <-k.ctx.Done():
	case <-timer.C:
		if err == nil {
			k.source.Changed(a.valid, snapshot.Revision) // whatever ends it, the answer has lapsed
		}
	}
}

// get waits for the answer that is current. Its moment is there.
func (k *keeper) get(ctx context.Context) (*answer, error) {
	a := k.ask()
	select {
	case <-a.ready:
		return a, a.err
	case <-k.ctx.Done():
		return nil, errClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (k *keeper) ask() *answer {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current == nil || k.current.valid.Err() != nil {
		valid, lapse := context.WithCancel(k.ctx)
		k.current = &answer{ready: make(chan struct{}), valid: valid, lapse: lapse}
		select {
		case k.asks <- k.current:
		case <-k.ctx.Done():
		}
	}
	return k.current
}

// fresh is get, but what was made longer ago than age does not count, changed or
// not. The age is at least the pace.
func (k *keeper) fresh(ctx context.Context, age time.Duration) (*answer, error) {
	a, err := k.get(ctx)
	if err == nil && time.Since(a.made) > age {
		a.lapse()
		return k.get(ctx)
	}
	return a, err
}
