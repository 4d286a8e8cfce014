package lanmanager

import (
	"context"
	"errors"
	"sync"
	"time"
)

// crew is the goroutines around the core: it starts them, ends them with its
// context and is waited for through tasks.
type crew struct {
	ctx     context.Context
	dismiss context.CancelCauseFunc
	inbox   chan func() // without a buffer: what was posted is done
	tasks   sync.WaitGroup
}

var errEnding = errors.New("the LAN manager is ending")

func newCrew() *crew {
	c := &crew{inbox: make(chan func())}
	c.ctx, c.dismiss = context.WithCancelCause(context.Background())
	return c
}

// post has f done by the core. It waits until the core takes it and returns
// false if the core is gone.
func (c *crew) post(f func()) bool {
	select {
	case c.inbox <- f:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// ask has f done by the core and waits until that is so. The error says that it
// was not done, because ctx ended before or the core did.
func (c *crew) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case c.inbox <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.ctx.Done():
		return errEnding
	}
}

// outside does work in a goroutine of its own, and then in the core what work
// returns, if that is not nil. Only the core calls it.
func (c *crew) outside(work func(context.Context) (inside func())) {
	c.tasks.Go(func() {
		if inside := work(c.ctx); inside != nil {
			c.post(inside)
		}
	})
}

// after has f done by the core when d is over, unless the timer is stopped
// before. A timer can be stopped too late: f has to look whether it still holds.
func (c *crew) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { c.post(f) })
}
