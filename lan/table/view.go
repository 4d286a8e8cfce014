package table

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
)

// view is what continuous queries that ask for the same see. What a change is
// for them is found out once.
type view struct {
	Query     // the first of them
	fields    []int
	window    *window // nil: all that match
	followers []*follower
}

// follower is one of these queries.
type follower struct {
	emit  func(json.RawMessage)
	place int // among the followers, -1 when it is closed
}

func newView(q Query, fields []int, rows *rows) *view {
	v := &view{Query: q, fields: fields}
	if q.Limit > 0 || q.Offset > 0 {
		v.window = newWindow(q, rows)
	}
	return v
}

func (v *view) isOf(q Query, fields []int) bool {
	return v.Limit == q.Limit && v.Offset == q.Offset && bytes.Equal(v.Filter.text, q.Filter.text) &&
		slices.Equal(v.fields, fields) && (v.fields == nil) == (fields == nil)
}

func (v *view) showsAll() bool { return v.Filter.test == nil && v.fields == nil && v.window == nil }

func (v *view) add(emit func(json.RawMessage)) *follower {
	f := &follower{emit: emit, place: len(v.followers)}
	v.followers = append(v.followers, f)
	return f
}

// remove says whether the follower was there. The last one takes its place.
func (v *view) remove(f *follower) bool {
	if f.place < 0 {
		return false
	}
	last := len(v.followers) - 1
	v.followers[f.place] = v.followers[last]
	v.followers[f.place].place = f.place
	v.followers[last] = nil
	v.followers = v.followers[:last]
	f.place = -1
	return true
}

func (v *view) emit(item json.RawMessage) {
	for _, f := range v.followers {
		f.emit(item)
	}
}

// tell emits what the change is for those who see through this view.
func (v *view) tell(rows *rows, i *items) {
	was := !i.before.IsZero() && v.Filter.Match(i.before)
	is := !i.after.IsZero() && v.Filter.Match(i.after)
	if v.window != nil {
		v.slide(rows, i, was, is)
		return
	}
	switch {
	case is && !was:
		v.emit(i.creation(v.fields))
	case is && was:
		v.update(i)
	case was:
		v.emit(i.deletion())
	}
}

func (v *view) update(i *items) {
	if item := i.update(v.fields); item != nil {
		v.emit(item)
	}
}

// window is the part of the matching records that offset and limit leave.
type window struct {
	from, to int      // in matching
	matching []uint64 // rows, in order
}

func newWindow(q Query, rows *rows) *window {
	w := &window{from: q.Offset, to: math.MaxInt}
	if q.Limit > 0 {
		w.to = q.Offset + q.Limit
	}
	for _, r := range rows.list {
		if !r.IsZero() && q.Filter.Match(r.Record) {
			w.matching = append(w.matching, r.number)
		}
	}
	return w
}

// slide is tell for a view with a window. A record that comes to those that
// match, or leaves them, moves all behind it by one place, so that at each end
// of the window at most one passes.
func (v *view) slide(rows *rows, i *items, was, is bool) {
	w := v.window
	place, _ := slices.BinarySearch(w.matching, i.number)
	if was && is {
		if w.from <= place && place < w.to {
			v.update(i)
		}
		return
	}
	switch {
	case is:
		w.matching = slices.Insert(w.matching, place, i.number)
	case was && place < w.from:
		v.leaves(rows, w.from)
		fallthrough
	case was:
		w.matching = slices.Delete(w.matching, place, place+1)
	}
	switch {
	case place >= w.to: // behind the window nobody sees it
	case is:
		v.leaves(rows, w.to)
		v.enters(rows, max(place, w.from))
	case was:
		if place >= w.from {
			v.emit(i.deletion())
		}
		v.enters(rows, w.to-1)
	}
}

// enters shows the matching record at the place, if there is one.
func (v *view) enters(rows *rows, place int) {
	if place < len(v.window.matching) {
		v.emit(creation(rows.at(v.window.matching[place]), v.fields))
	}
}

// leaves takes the matching record at the place off, if there is one.
func (v *view) leaves(rows *rows, place int) {
	if place < len(v.window.matching) {
		v.emit(deletion(rows.at(v.window.matching[place]).appendKeyFilter(nil)))
	}
}
