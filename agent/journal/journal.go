// Package journal keeps what has happened on a machine, and what is, in one
// order, for those who watch.
//
// A Journal numbers the changes: every change has a revision of its own, which
// only grows. It knows nothing of what changes: a Log keeps things that
// happened, in a ring, and a Table keeps the newest state of each key. Whoever
// writes never waits for who reads: a Reader has a place in the order and
// nothing else, takes what comes next at its own speed, and is told when it
// has been overtaken. So the memory is that of the Logs and Tables, however many
// Readers there are. All methods may be called from any goroutine.
//
// The journal lives as long as its agent: with another Epoch it is another one,
// and revisions of two epochs have nothing to do with each other. The agent
// writes it, the server reads it.
package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
)

// Journal is the order of all changes. Make it with New.
type Journal struct {
	epoch string

	mu       sync.Mutex // also of its Logs and Tables
	revision uint64
	newer    chan struct{} // closed with the next revision, or by End; nil: nobody waits
	ended    bool
}

// New makes a Journal without a change, with an epoch of its own.
func New() *Journal { return &Journal{epoch: rand.Text()[:16]} }

// Position is a place in the order of an agent's changes. The zero Position is
// before all of them.
type Position struct {
	Epoch    string
	Revision uint64
}

// Position is that of the last change.
func (j *Journal) Position() Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Position{j.epoch, j.revision}
}

// End says that nothing changes any more: Readers get what there is, and then
// ErrEnded.
func (j *Journal) End() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = true
	j.wake()
}

// next is the revision of one more change. The caller has locked.
func (j *Journal) next() uint64 {
	j.revision++
	j.wake()
	return j.revision
}

func (j *Journal) wake() {
	if j.newer != nil {
		close(j.newer)
		j.newer = nil
	}
}

// Entry is one change.
type Entry[T any] struct {
	Revision uint64
	Key      string
	Value    T    // zero if it is gone
	Gone     bool // in a Table: the key is not there any more
}

// The errors of reading, beside *CompactedError.
var (
	// ErrOvertaken says that more has happened than is kept, while a Reader was
	// not reading. It has to start over, or where it was by another Open.
	ErrOvertaken = errors.New("more has happened than is kept")
	// ErrEnded says that nothing more will happen.
	ErrEnded = errors.New("nothing changes any more")
	// ErrAhead says that the Start lies in the future.
	ErrAhead = errors.New("there is no such revision yet")
)

// CompactedError says that what a Reader was to start with is not kept any
// more, or is of another epoch.
type CompactedError struct {
	Oldest uint64 // the first revision at which one can start now
	Epoch  string // of this journal
}

func (e *CompactedError) Error() string {
	return fmt.Sprintf("the journal of epoch %s begins at revision %d", e.Epoch, e.Oldest)
}
