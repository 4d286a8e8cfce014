package port

import (
	"iter"
	"time"
)

// quarantine is the ports that rest after their release: whoever still has the
// address of the instance before must not reach another one there. The instance
// itself may have its port back at once, unless it was stolen; so may a need that
// asks for this very port, and so may anybody when nothing else is free.
type quarantine struct {
	rest   time.Duration // 0: only stolen ports rest
	byPort map[int]resting
	queue  []resting // in the order of their ends; those that are not in byPort count no more
}

type resting struct {
	Lease
	until  time.Time
	stolen bool
}

// stolenRest is how long a stolen port rests where others do not.
const stolenRest = 30 * time.Second

// add begins the rest of a port that was leased.
func (q *quarantine) add(l Lease, stolen bool) {
	rest := q.rest
	if stolen && rest <= 0 {
		rest = stolenRest
	}
	if rest <= 0 {
		return
	}
	q.expire()
	l.State = StateQuarantined
	r := resting{l, time.Now().Add(rest), stolen}
	q.byPort[l.Port] = r
	q.queue = append(q.queue, r)
}

// end ends the rest of a port, if it rests.
func (q *quarantine) end(number int) { delete(q.byPort, number) }

// expire forgets the rests that are over.
func (q *quarantine) expire() {
	now := time.Now()
	for len(q.queue) > 0 && (!now.Before(q.queue[0].until) || !q.has(q.queue[0])) {
		if q.has(q.queue[0]) {
			q.end(q.queue[0].Port)
		}
		q.queue = q.queue[1:]
	}
}

// all is the ports that rest now, the one whose rest ends first before the
// others.
func (q *quarantine) all() iter.Seq[Lease] {
	q.expire()
	return func(yield func(Lease) bool) {
		for _, r := range q.queue {
			if q.has(r) && !yield(r.Lease) {
				return
			}
		}
	}
}

func (q *quarantine) has(r resting) bool { return q.byPort[r.Port] == r }

// rests tells whether a port rests and is not to be had by instance.
func (q *quarantine) rests(number int, instance string) bool {
	r, ok := q.byPort[number]
	return ok && (r.stolen || r.Instance != instance) && time.Now().Before(r.until)
}
