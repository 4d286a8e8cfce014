package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/allexgo/machine-agent/internal/disk"
)

// This file is about a disk that does not take what is written: what it refuses is
// owed to it, and what it holds up is told.

// stuckAfter is how long a write takes at most on a disk that is well; keptStuckAfter,
// with all that it waits for when it is synced, on a slow one that is busy.
const (
	stuckAfter     = 2 * time.Second
	keptStuckAfter = 30 * time.Second
)

// lane is a way to the disk. What is synced has one of its own: a record, for which
// a start waits, does not wait for it.
type lane struct {
	writing    chan struct{} // has an element for each file that is being written
	stuckAfter time.Duration
}

// owedAgain is how often what is owed is tried again.
const owedAgain = time.Second

// owed are the writes that the disk has refused, by path: the last one of each.
type owed map[string]debt

type debt struct {
	lane lane
	put  func() error
	err  error // with which it was refused
}

// paths are in an order in which what the operator wants kept is the first.
func (o owed) paths() []string { return slices.Sorted(maps.Keys(o)) }

// write has a file written. If it can not be it is owed, unless nothing comes of it
// without: what there is stays then.
func (s *Store) write(l lane, path string, owing bool, put func() error) error {
	l.writing <- struct{}{}
	defer func() { <-l.writing }()
	return s.try(l, path, owing, put)
}

// try is write for those who have one of the places of the lane, or all.
func (s *Store) try(l lane, path string, owing bool, put func() error) error {
	began := time.Now()
	late := time.AfterFunc(l.stuckAfter, func() { s.onStuck(1, began) })
	err := explained(put())
	if !late.Stop() {
		s.onStuck(-1, began)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		delete(s.owed, path)
	case owing:
		s.owed[path] = debt{l, put, err}
		select {
		case s.owes <- struct{}{}:
		default:
		}
	}
	return err
}

// explained adds what to do to the error of a file.
func explained(err error) error {
	if cure := disk.Cure(err); cure != "" {
		return fmt.Errorf("%w; %s", err, cure)
	}
	return err
}

// OnStuck has f called with 1 when a write has waited for the disk for longer than it
// would on one that is well, and with -1 when it is over; since is when it began. Call
// it before there is anything to write. f may be called from any goroutine, and the
// second call may overtake the first.
func (s *Store) OnStuck(f func(more int, since time.Time)) { s.onStuck = f }

// Run writes what is owed as soon as the disk takes it, until ctx ends.
func (s *Store) Run(ctx context.Context) {
	for {
		select {
		case <-s.owes:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(owedAgain):
		case <-ctx.Done():
			return
		}
		s.Settle()
	}
}

// Settle tries once to write what is owed, and first what the operator wants kept.
func (s *Store) Settle() {
	s.settle(s.kept)
	s.settle(s.records)
}

// settle is Settle for a lane, on which nobody else writes meanwhile, so that nothing
// takes the place of what is newer.
func (s *Store) settle(l lane) {
	for range cap(l.writing) {
		l.writing <- struct{}{}
		defer func() { <-l.writing }()
	}
	s.mu.Lock()
	all := maps.Clone(s.owed)
	s.mu.Unlock()
	for _, path := range all.paths() {
		if all[path].lane == l {
			_ = s.try(l, path, true, all[path].put) // then it is still owed
		}
	}
}

// Warning tells of what is owed; empty if nothing is.
func (s *Store) Warning() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.owed) == 0 {
		return ""
	}
	return fmt.Sprintf("files of the state directory that could not be written and are tried again: %d, the first one: %v", len(s.owed), s.owed[s.owed.paths()[0]].err)
}

// opened explains the error of open.
func opened(s *Store, err error) (*Store, error) {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		err = fmt.Errorf("%w; %s", err, cmp.Or(disk.Cure(err), "make the directory writable for the user that agentd runs as, or name another one"))
	}
	if _, ok := errors.AsType[*LockedError](err); err != nil && !ok {
		err = fmt.Errorf("statedirectory: %w", err)
	}
	return s, err
}
