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
	rows  rows
	newID func() string
	views []*view // that somebody follows
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
		t.tell(&items{number: before.number, before: before.Record, after: r})
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
	inOne := func(v *view) bool { return v.showsAll() && t.isVisible(f) }
	for _, r := range chosen {
		gone, _ := t.rows.delete(r.key)
		i := &items{number: gone.number, before: r}
		for _, v := range t.views {
			if !inOne(v) {
				v.tell(&t.rows, i)
			}
		}
	}
	var item json.RawMessage
	for _, v := range t.views {
		if inOne(v) {
			if item == nil {
				text, _ := f.MarshalJSON() // it never fails
				item = deletion(text)
			}
			v.emit(item)
		}
	}
	return len(chosen)
}

// isVisible says whether the filter is of the kind that everybody can follow:
// on equality of a field that is in all records of a query.
func (t *Table) isVisible(f Filter) bool {
	i, ok := t.rows.schema.index[f.field]
	return ok && !t.rows.schema.Fields[i].Hidden
}

// Query emits the records that q asks for, as the items "i", "rb", "r1" and
// "re", before it returns. If q is continuous it goes on with "c", "u" and "d"
// until close is called: a record that stops matching comes as "d", one that
// starts as "c". Close may be called twice. Emit must not block and must not
// change the items, which queries share.
func (t *Table) Query(q Query, emit func(item json.RawMessage)) (id string, close func()) {
	id = t.newID()
	emit(mark("i", id))
	fields := q.fields(t.rows.schema)
	t.read(q, fields, emit)
	if !q.Continuous {
		return id, func() {}
	}
	return id, t.follow(q, fields, emit)
}

// read emits what the table has now.
func (t *Table) read(q Query, fields []int, emit func(json.RawMessage)) {
	id := t.newID()
	emit(mark("rb", id))
	prefix := string(append(rawjson.AppendString([]byte(`["r1",`), id), ','))
	skip, left := q.Offset, q.Limit
	for _, r := range t.rows.all() {
		if !q.Filter.Match(r) {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		emit(append(r.appendVisible(withPrefix(prefix, r), fields), ']'))
		if left--; left == 0 {
			break
		}
	}
	emit(mark("re", id))
}

// follow tells emit what changes in the view of the query, which it shares with
// all who ask for the same.
func (t *Table) follow(q Query, fields []int, emit func(json.RawMessage)) (close func()) {
	place := slices.IndexFunc(t.views, func(v *view) bool { return v.isOf(q, fields) })
	if place < 0 {
		place = len(t.views)
		t.views = append(t.views, newView(q, fields, &t.rows))
	}
	v := t.views[place]
	f := v.add(emit)
	return func() {
		if v.remove(f) && len(v.followers) == 0 {
			t.views = slices.DeleteFunc(t.views, func(other *view) bool { return other == v })
		}
	}
}

// tell tells every view that a record came, changed or went.
func (t *Table) tell(i *items) {
	for _, v := range t.views {
		v.tell(&t.rows, i)
	}
}
