package table

import (
	"cmp"
	"errors"
	"iter"
	"slices"
)

// ErrFull means that a table has reached its size. It is a guard against the
// other side, far beyond any real table.
var ErrFull = errors.New("table is full")

const (
	maxBytes = 64 << 20 // of one table
	rowBytes = 256      // that a record costs beside its text, roughly
)

// row is a record in its place. Rows that came later have greater numbers.
type row struct {
	Record // zero if it was deleted
	number uint64
}

// rows are records by key, in the order in which their keys came.
type rows struct {
	schema *Schema
	places map[string]int // in list
	list   []row
	last   uint64 // number
	bytes  int
	limit  int
}

func newRows(s *Schema) rows {
	return rows{schema: s, places: make(map[string]int), limit: maxBytes}
}

func cost(r Record) int {
	if r.IsZero() {
		return 0
	}
	return len(r.text) + rowBytes
}

// put stores a record, in the place of the one that had its key, and returns
// that one with the place.
func (t *rows) put(r Record) (before row, err error) {
	place, known := t.places[r.key]
	if known {
		before = t.list[place]
	}
	bytes := t.bytes + cost(r) - cost(before.Record)
	if bytes > t.limit {
		return before, ErrFull
	}
	t.bytes = bytes
	if known {
		t.list[place].Record = r
		return before, nil
	}
	if len(t.list) > 2*len(t.places)+32 {
		t.compact()
	}
	t.last++
	before.number = t.last
	t.places[r.key] = len(t.list)
	t.list = append(t.list, row{r, t.last})
	return before, nil
}

// compact makes a new list, so that one who walks the old one is not disturbed.
func (t *rows) compact() {
	list := make([]row, 0, 2*len(t.places))
	for _, r := range t.list {
		if !r.IsZero() {
			t.places[r.key] = len(list)
			list = append(list, r)
		}
	}
	t.list = list
}

func (t *rows) get(key string) (Record, bool) {
	place, ok := t.places[key]
	if !ok {
		return Record{}, false
	}
	return t.list[place].Record, true
}

// at returns the record of a row that there is.
func (t *rows) at(number uint64) Record {
	place, _ := slices.BinarySearchFunc(t.list, number, func(r row, n uint64) int { return cmp.Compare(r.number, n) })
	return t.list[place].Record
}

func (t *rows) delete(key string) (row, bool) {
	place, ok := t.places[key]
	if !ok {
		return row{}, false
	}
	r := t.list[place]
	t.list[place].Record = Record{}
	delete(t.places, key)
	t.bytes -= cost(r.Record)
	return r, true
}

// match returns the records that the filter chooses, in order.
func (t *rows) match(f Filter) []Record {
	if key, ok := f.key(t.schema); ok {
		if r, ok := t.get(key); ok {
			return []Record{r}
		}
		return nil
	}
	var chosen []Record
	for _, r := range t.all() {
		if f.Match(r) {
			chosen = append(chosen, r)
		}
	}
	return chosen
}

// all walks the records in order. Those deleted meanwhile are left out; those
// that come meanwhile may be.
func (t *rows) all() iter.Seq2[string, Record] {
	return func(yield func(string, Record) bool) {
		for _, r := range t.list {
			if !r.IsZero() && !yield(r.key, r.Record) {
				return
			}
		}
	}
}
