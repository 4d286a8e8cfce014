// Package probe asks a process from outside how it is: whether a port of it
// accepts, what a page of it answers, what it has logged (design section 6).
//
// A Question is asked once, or until the answer is yes. Questions hold nothing
// between two calls, Log apart, and may be asked from any goroutine. Only package
// agent imports it.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	firstPause = 300 * time.Microsecond // a small child listens within a few milliseconds
	lastPause  = 50 * time.Millisecond
	oneTry     = time.Second // for somebody who answers neither yes nor no
)

// Question is something to ask a process from outside.
type Question struct {
	no  string // what it means that the answer is no
	ask func(context.Context) error
}

// Once asks once, as long as ctx lets it. The error says why the answer is no.
func (q Question) Once(ctx context.Context) error {
	if err := q.ask(ctx); err != nil {
		return q.refused(err)
	}
	return nil
}

func (q Question) refused(err error) error { return fmt.Errorf("%s (%w)", q.no, err) }

// Until asks, with growing pauses, until the answer is yes or ctx ends; then the
// error says what was asked, what the last answer was, and wraps the context's
// cause. told is given each answer that is no, as Once returns it.
func (q Question) Until(ctx context.Context, told func(error)) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	var last error
	for wait := firstPause; ; wait = min(wait*3/2, lastPause) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s (%v): %w", q.no, last, context.Cause(ctx))
		case <-pause.C:
		}
		try, stop := context.WithTimeout(ctx, oneTry)
		err := q.ask(try)
		stop()
		if err == nil {
			return nil
		}
		if last == nil || !timeout(err) && ctx.Err() == nil { // a refusal says more than the end of our patience
			last = err
			told(q.refused(err))
		}
		pause.Reset(wait)
	}
}

func timeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
