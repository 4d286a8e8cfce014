package journal

import "context"

// Start is where a Reader begins.
type Start struct {
	// Position is the first change that is wanted. With Revision 0 it is all
	// that there is, or, if Skip is set, what changes from now on; then Epoch does
	// not count.
	Position
	Skip bool
	// Key is the only one of interest; empty: all are.
	Key string
}

// feed is what a Log and a Table have in common.
type feed[T any] struct {
	*Journal
	// floor is the last revision of which something was thrown away that a
	// Reader there would have to be told.
	floor   uint64
	readers map[*Reader[T]]struct{}
	// initial is where a Reader begins that wants all there is, and the revision
	// up to which it need not be told what is gone.
	initial func() (after, base uint64)
	// read has a Reader take what comes next for it, at most up to a revision.
	read func(r *Reader[T], upTo uint64)
}

// raise notes that a revision was thrown away, and tells those who needed it.
func (f *feed[T]) raise(revision uint64) {
	f.floor = revision
	for r := range f.readers {
		if max(r.after, r.base) < revision {
			close(r.overtaken)
			delete(f.readers, r)
		}
	}
}

// Open makes a Reader, which must be closed. Errors: *CompactedError, ErrAhead.
func (f *feed[T]) Open(s Start) (*Reader[T], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &Reader[T]{feed: f, key: s.Key, present: f.revision, overtaken: make(chan struct{})}
	switch {
	case s.Revision == 0 && s.Skip:
		r.after = f.revision
	case s.Revision == 0:
		r.after, r.base = f.initial()
	case s.Epoch != f.epoch || s.Revision-1 < f.floor:
		return nil, &CompactedError{Oldest: f.floor + 1, Epoch: f.epoch}
	case s.Revision-1 > f.revision:
		return nil, ErrAhead
	default:
		r.after, r.present = s.Revision-1, s.Revision-1 // nothing but what changed since
	}
	if f.readers == nil {
		f.readers = make(map[*Reader[T]]struct{})
	}
	f.readers[r] = struct{}{}
	return r, nil
}

// batchSize is how much a Reader takes at a time: little enough that who writes
// does not notice.
const batchSize = 128

// Reader is one who reads a Log or a Table. Next, Initial and
// Revision are for one goroutine at a time.
type Reader[T any] struct {
	feed      *feed[T]
	key       string
	after     uint64 // the last revision that was read
	base      uint64
	present   uint64        // what there was when the Reader was made
	finish    bool          // no more than there is
	overtaken chan struct{} // closed when what comes next is not kept any more
	batch     []Entry[T]
}

// Next is what comes next: the present, and then each change, in order. It
// blocks until there is something. The batch is the Reader's own, and good until
// the next Next. One that ends the present may be empty. Errors: ErrOvertaken,
// ErrEnded, those of ctx.
func (r *Reader[T]) Next(ctx context.Context) ([]Entry[T], error) {
	for {
		newer, err := r.look()
		if newer == nil {
			return r.batch, err
		}
		select {
		case <-newer:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// look fills the batch. If there is nothing to tell, it returns what is closed
// when there may be.
func (r *Reader[T]) look() (newer <-chan struct{}, err error) {
	f := r.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	r.batch = r.batch[:0]
	select {
	case <-r.overtaken:
		return nil, ErrOvertaken
	default:
	}
	if r.batch == nil {
		r.batch = make([]Entry[T], 0, batchSize)
	}
	upTo, initial := f.revision, r.Initial()
	if initial {
		upTo = r.present
	}
	f.read(r, upTo)
	switch {
	case len(r.batch) > 0 || initial && !r.Initial():
		return nil, nil
	case f.ended || r.finish:
		return nil, ErrEnded
	}
	if f.newer == nil {
		f.newer = make(chan struct{})
	}
	return f.newer, nil
}

// take puts an entry into the batch, unless that is full or nobody wants it. It
// tells whether there was room.
func (r *Reader[T]) take(e *Entry[T]) bool {
	if r.key == "" || r.key == e.Key {
		if len(r.batch) == cap(r.batch) {
			return false
		}
		r.batch = append(r.batch, *e)
	}
	r.after = e.Revision
	return true
}

// Initial tells whether the Reader is still about to tell what there was when it
// was made.
func (r *Reader[T]) Initial() bool { return r.after < r.present }

// Revision is that of the last change that Next has told, or passed over.
func (r *Reader[T]) Revision() uint64 { return r.after }

// Epoch is that of the journal.
func (r *Reader[T]) Epoch() string { return r.feed.epoch }

// Overtaken is closed when what comes next is not kept any more, whether anybody
// is in Next or not.
func (r *Reader[T]) Overtaken() <-chan struct{} { return r.overtaken }

// Finish has Next give what there is, and then ErrEnded. Any goroutine may call
// it.
func (r *Reader[T]) Finish() {
	r.feed.mu.Lock()
	defer r.feed.mu.Unlock()
	r.finish = true
	r.feed.wake()
}

// Close has the Reader forgotten. It may be called twice.
func (r *Reader[T]) Close() {
	r.feed.mu.Lock()
	defer r.feed.mu.Unlock()
	delete(r.feed.readers, r)
}
