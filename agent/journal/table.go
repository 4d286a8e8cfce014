package journal

import "container/list"

// Table keeps the newest state of each key, and, of the keys that are gone, the
// last ones. A Reader is told of every key that changed, but not of every state
// it was in: what is overwritten before it was read is left out.
type Table[T any] struct {
	feed[T]
	most int // of the keys that are gone
	same func(a, b T) bool

	// Both in the order of their last change; the values are *Entry[T].
	here, gone list.List
	byKey      map[string]*list.Element // in one of them
}

// NewTable makes a Table that remembers that many of the keys that are gone.
// same tells whether a state is not worth telling after another one.
func NewTable[T any](j *Journal, most int, same func(a, b T) bool) *Table[T] {
	t := &Table[T]{most: most, same: same, byKey: make(map[string]*list.Element)}
	t.feed = feed[T]{Journal: j, initial: func() (uint64, uint64) { return 0, j.revision }, read: t.readLists}
	return t
}

// Set says what the state of key is, and tells what it was. Without a change
// nothing happens.
func (t *Table[T]) Set(key string, value T) (was T, changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.byKey[key]
	if at != nil {
		e := at.Value.(*Entry[T])
		if !e.Gone {
			if was = e.Value; t.same(was, value) {
				return was, false
			}
			t.here.MoveToBack(at)
		} else {
			t.gone.Remove(at)
			at = nil
		}
	}
	if at == nil {
		at = t.here.PushBack(new(Entry[T]))
		t.byKey[key] = at
	}
	*at.Value.(*Entry[T]) = Entry[T]{Revision: t.next(), Key: key, Value: value}
	return was, true
}

// Delete says that there is no state of key any more.
func (t *Table[T]) Delete(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.byKey[key]
	if at == nil || at.Value.(*Entry[T]).Gone {
		return
	}
	e := t.here.Remove(at).(*Entry[T])
	*e = Entry[T]{Revision: t.next(), Key: key, Gone: true} // a state may be large
	t.byKey[key] = t.gone.PushBack(e)
	if t.gone.Len() > t.most {
		lost := t.gone.Remove(t.gone.Front()).(*Entry[T])
		delete(t.byKey, lost.Key)
		t.raise(lost.Revision)
	}
}

func (t *Table[T]) readLists(r *Reader[T], upTo uint64) {
	here, gone := since[T](&t.here, r.after), since[T](&t.gone, max(r.after, r.base))
	for {
		next := &here
		if h, g := entry[T](here), entry[T](gone); h == nil || g != nil && g.Revision < h.Revision {
			next = &gone
		}
		e := entry[T](*next)
		if e == nil || e.Revision > upTo {
			r.after = upTo
			return
		}
		if !r.take(e) {
			return
		}
		*next = (*next).Next()
	}
}

// since is the first element after a revision; nil if there is none.
func since[T any](l *list.List, after uint64) (at *list.Element) {
	if front := entry[T](l.Front()); front != nil && front.Revision > after {
		return l.Front()
	}
	for e := l.Back(); e != nil && entry[T](e).Revision > after; e = e.Prev() {
		at = e
	}
	return at
}

func entry[T any](e *list.Element) *Entry[T] {
	if e == nil {
		return nil
	}
	return e.Value.(*Entry[T])
}
