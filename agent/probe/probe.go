// Package probe asks a process from outside how it is: whether a port of it
// accepts, what a page of it answers, what it has logged (design section 6).
//
// Every function waits until the answer is yes, or its context ends; then the
// error says what was asked, what the last answer was, and wraps the context's
// cause. They hold nothing between two calls and may be called from any
// goroutine. Only package agent imports it.
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

// until tries, with growing pauses, until a try has no error or ctx ends. what
// says in the error what was tried.
func until(ctx context.Context, what string, try func() error) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	var last error
	for wait := firstPause; ; wait = min(wait*3/2, lastPause) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s (%v): %w", what, last, context.Cause(ctx))
		case <-pause.C:
		}
		err := try()
		if err == nil {
			return nil
		}
		if last == nil || !timeout(err) && ctx.Err() == nil { // a refusal says more than the end of our patience
			last = err
		}
		pause.Reset(wait)
	}
}

func timeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
