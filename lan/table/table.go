package table

import (
	"encoding/json"
	"errors"
	"iter"
	"slices"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// ErrExists means that a table has a record with that key.
var ErrExists = errors.New("record exists")

// Table is the original of a table. Every change is told to the continuous
// queries before the method returns. It is not safe for concurrent use, and
// the emit functions of its queries must not call it.
type Table struct {
	rows    rows
	newID   func() string
	queries []*liveQuery // the oldest first
}

// liveQuery is a continuous query.
type liveQuery struct {
	Query
	fields []int               // visible ones; nil: the usual
	shown  map[string]struct{} // keys; nil: no window
	emit   func(json.RawMessage)
}

// New returns an empty table. NewID makes the names of queries and readings,
// which must be unique on a connection.
func New(s *Schema, newID func() string) *Table {
	return &Table{rows: newRows(s), newID: newID}
}

// Len is the number of records.
func (t *Table) Len() int { return len(t.rows.places) }

// Get returns the record with the key.
func (t *Table) Get(key string) (Record, bool) { return t.rows.get(key) }

// All walks the records in the order in which they came. The loop may delete
// records, but not add any.
func (t *Table) All() iter.Seq2[string, Record] { return t.rows.all() }

// Create adds a record; ErrExists if there is one with its key, ErrFull if the
// table is.
func (t *Table) Create(r Record) error {
	if _, ok := t.rows.get(r.key); ok {
		return ErrExists
	}
	return t.Put(r)
}

// Put adds a record, or takes it instead of the one with its key. The error is
// ErrFull.
func (t *Table) Put(r Record) error {
	before, err := t.rows.put(r)
	if err == nil && !before.Equal(r) {
		t.tell(before, r)
	}
	return err
}

// Update sets the fields of the JSON object partial in the records that the
// filter chooses, and returns how many those are. Keys do not change.
func (t *Table) Update(f Filter, partial json.RawMessage) (int, error) {
	chosen := t.rows.match(f)
	for i, before := range chosen {
		after, err := before.With(partial)
		if err == nil {
			err = t.Put(after)
		}
		if err != nil {
			return i, err
		}
	}
	return len(chosen), nil
}

// Delete takes the records that the filter chooses off, and returns how many
// those are. Queries that show everything hear of it in one item.
func (t *Table) Delete(f Filter) int {
	chosen := t.rows.match(f)
	if len(chosen) == 0 {
		return 0
	}
	gone := make([]*items, len(chosen))
	for i, r := range chosen {
		t.rows.delete(r.key)
		gone[i] = &items{before: r}
	}
	var one json.RawMessage
	for _, q := range t.queries {
		if !q.showsAll() || !t.isVisible(f) {
			for _, i := range gone {
				q.tell(i)
			}
			continue
		}
		if one == nil {
			text, _ := f.MarshalJSON() // it never fails
			one = deletion(text)
		}
		q.emit(one)
	}
	return len(chosen)
}

// isVisible says whether the filter is of the kind that everybody can follow:
// on equality of a field that is in all records of a query.
func (t *Table) isVisible(f Filter) bool {
	i, ok := t.rows.schema.index[f.field]
	return f.op == "eq" && ok && !t.rows.schema.Fields[i].Hidden
}

// Query emits the records that q asks for, as the items "i", "rb", "r1" and
// "re", before it returns. If q is continuous it goes on with "c", "u" and "d"
// until close is called: a record that stops matching comes as "d", one that
// starts as "c". Close may be called twice. Emit must not block and must not
// change the items, which queries share.
func (t *Table) Query(q Query, emit func(item json.RawMessage)) (id string, close func()) {
	id = t.newID()
	live := &liveQuery{Query: q, fields: q.fields(t.rows.schema), emit: emit}
	if q.Limit > 0 || q.Offset > 0 {
		live.shown = make(map[string]struct{})
	}
	emit(mark("i", id))
	t.read(live)
	if !q.Continuous {
		return id, func() {}
	}
	t.queries = append(t.queries, live)
	return id, func() {
		t.queries = slices.DeleteFunc(t.queries, func(other *liveQuery) bool { return other == live })
	}
}

// read emits what the table has now.
func (t *Table) read(q *liveQuery) {
	id := t.newID()
	q.emit(mark("rb", id))
	skip, left := q.Offset, q.Limit
	for key, r := range t.rows.all() {
		if !q.Filter.Match(r) {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		item := rawjson.AppendString([]byte(`["r1",`), id)
		q.emit(append(r.appendVisible(append(item, ','), q.fields), ']'))
		if q.shown != nil {
			q.shown[key] = struct{}{}
		}
		if left--; left == 0 {
			break
		}
	}
	q.emit(mark("re", id))
}

// tell tells every query that a record came, changed or went.
func (t *Table) tell(before, after Record) {
	items := &items{before: before, after: after}
	for _, q := range t.queries {
		q.tell(items)
	}
}

func (q *liveQuery) showsAll() bool { return q.Filter.op == "" && q.fields == nil && q.shown == nil }

// tell emits what the change is for those who see through this query.
func (q *liveQuery) tell(i *items) {
	was := !i.before.IsZero() && q.Filter.Match(i.before)
	is := !i.after.IsZero() && q.Filter.Match(i.after)
	if q.shown != nil {
		_, was = q.shown[i.key()]
		is = is && (was || q.Limit == 0 || len(q.shown) < q.Limit)
		if is {
			q.shown[i.key()] = struct{}{}
		} else {
			delete(q.shown, i.key())
		}
	}
	var item json.RawMessage
	switch {
	case is && !was:
		item = i.creation(q.fields)
	case is && was:
		item = i.update(q.fields)
	case was:
		item = i.deletion()
	}
	if item != nil {
		q.emit(item)
	}
}
