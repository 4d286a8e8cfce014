package journal

// Log keeps the last things that happened.
type Log[T any] struct {
	feed[T]
	most int
	ring []Entry[T]
	head int // where the oldest is, once the ring is full
}

// NewLog makes a Log that keeps that many entries.
func NewLog[T any](j *Journal, most int) *Log[T] {
	l := &Log[T]{most: most}
	l.feed = feed[T]{Journal: j, initial: func() (uint64, uint64) { return l.floor, 0 }, read: l.readRing}
	return l
}

// Add notes that something happened to key.
func (l *Log[T]) Add(key string, value T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := Entry[T]{Revision: l.next(), Key: key, Value: value}
	if len(l.ring) < l.most {
		l.ring = append(l.ring, e)
		return
	}
	lost := l.ring[l.head].Revision
	l.ring[l.head] = e
	l.head = (l.head + 1) % l.most
	l.raise(lost)
}

// at is the entry of that age; the oldest is 0.
func (l *Log[T]) at(age int) *Entry[T] { return &l.ring[(l.head+age)%len(l.ring)] }

func (l *Log[T]) readRing(r *Reader[T], upTo uint64) {
	age := len(l.ring)
	for age > 0 && l.at(age-1).Revision > r.after {
		age--
	}
	for ; age < len(l.ring) && l.at(age).Revision <= upTo; age++ {
		if !r.take(l.at(age)) {
			return
		}
	}
	r.after = upTo
}
