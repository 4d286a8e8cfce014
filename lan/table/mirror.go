package table

import (
	"encoding/json"
	"fmt"
	"iter"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// ChangeKind is what happened to a record of a Mirror.
type ChangeKind int

// What can happen. "Created" is also said of a record whose key was there
// already, with Old set: the other side made it anew, and nothing of the old one
// holds.
const (
	Created ChangeKind = iota + 1
	Updated
	Deleted
)

func (k ChangeKind) String() string {
	switch k {
	case Created:
		return "created"
	case Updated:
		return "updated"
	case Deleted:
		return "deleted"
	}
	return "no change"
}

// Change is one thing that an item changed.
type Change struct {
	Kind     ChangeKind
	Key      string
	Old      Record // before; zero if there was none
	New      Record // after; zero if it is gone
	FromRead bool   // found by reading the table, not told as it happened
}

// Mirror is the copy of a table that the items of one continuous query keep
// (PROTOCOL section 6). It is not safe for concurrent use.
type Mirror struct {
	rows     rows
	reading  bool                // between rb and re
	seen     map[string]struct{} // keys that this reading has shown
	complete bool
}

// NewMirror returns an empty mirror of a table of the schema.
func NewMirror(s *Schema) *Mirror { return &Mirror{rows: newRows(s)} }

// Complete says whether the table has been read once to its end.
func (m *Mirror) Complete() bool { return m.complete }

// Len is the number of records.
func (m *Mirror) Len() int { return len(m.rows.places) }

// Get returns the record with the key.
func (m *Mirror) Get(key string) (Record, bool) { return m.rows.get(key) }

// All walks the records in the order in which they came. The loop may not
// change the mirror.
func (m *Mirror) All() iter.Seq2[string, Record] { return m.rows.all() }

// Apply does what an item says and returns what that changed, in order. It
// keeps nothing of item. Changes and deletions of records that it does not have
// are nothing; so is the repetition of a record in a second reading. After an
// error the mirror is as it was, or, for an item about several records, changed
// as far as the returned changes say.
func (m *Mirror) Apply(item json.RawMessage) ([]Change, error) {
	changes, err := m.apply(item)
	if err != nil {
		return changes, fmt.Errorf("item of %s: %w", m.rows.schema.Name, err)
	}
	return changes, nil
}

func (m *Mirror) apply(item json.RawMessage) ([]Change, error) {
	parts, err := rawjson.Elements(item, maxDepth, make([]json.RawMessage, 0, 3))
	if err != nil {
		return nil, err
	}
	if len(parts) < 2 {
		return nil, fmt.Errorf("%d elements, at least 2 wanted", len(parts))
	}
	last := parts[len(parts)-1]
	switch kind, _ := rawjson.String(parts[0]); kind {
	case "i":
		return nil, nil
	case "rb":
		m.reading, m.seen = true, make(map[string]struct{})
		return nil, nil
	case "r1":
		return m.read(last)
	case "re":
		return m.endRead(), nil
	case "c":
		return m.create(last)
	case "u":
		return m.update(parts[1], last)
	case "d":
		return m.delete(parts[1])
	case "ue":
		return m.replace(parts[1], last)
	default:
		return nil, fmt.Errorf("unknown kind %.20q", parts[0])
	}
}

// store puts a record into the mirror and says what that is.
func (m *Mirror) store(r Record, kind ChangeKind) (Change, error) {
	before, err := m.rows.put(r)
	if err != nil {
		return Change{}, err
	}
	if m.reading {
		m.seen[r.key] = struct{}{}
	}
	return Change{Kind: kind, Key: r.key, Old: before.Record, New: r}, nil
}

func (m *Mirror) read(text json.RawMessage) ([]Change, error) {
	r, err := m.rows.schema.Parse(text)
	if err != nil {
		return nil, err
	}
	change, err := m.store(r, Created)
	if err != nil || change.Old.Equal(r) {
		return nil, err
	}
	if !change.Old.IsZero() {
		change.Kind = Updated
	}
	change.FromRead = true
	return []Change{change}, nil
}

// endRead drops what the reading has not shown.
func (m *Mirror) endRead() []Change {
	if !m.reading {
		return nil
	}
	var changes []Change
	for key, r := range m.rows.all() {
		if _, ok := m.seen[key]; !ok {
			m.rows.delete(key)
			changes = append(changes, Change{Kind: Deleted, Key: key, Old: r, FromRead: true})
		}
	}
	m.reading, m.seen, m.complete = false, nil, true
	return changes
}

func (m *Mirror) create(text json.RawMessage) ([]Change, error) {
	r, err := m.rows.schema.Parse(text)
	if err != nil {
		return nil, err
	}
	change, err := m.store(r, Created)
	if err != nil {
		return nil, err
	}
	return []Change{change}, nil
}

func (m *Mirror) update(filter, partial json.RawMessage) ([]Change, error) {
	f, err := parseFilter(m.rows.schema, filter)
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	var changes []Change
	for _, before := range m.rows.match(f) {
		after, err := before.With(partial)
		if err != nil {
			return changes, err
		}
		if after.Equal(before) {
			continue
		}
		if _, err := m.rows.put(after); err != nil {
			return changes, err
		}
		changes = append(changes, Change{Kind: Updated, Key: before.key, Old: before, New: after})
	}
	return changes, nil
}

func (m *Mirror) delete(filter json.RawMessage) ([]Change, error) {
	f, err := parseFilter(m.rows.schema, filter)
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	var changes []Change
	for _, r := range m.rows.match(f) {
		m.rows.delete(r.key)
		changes = append(changes, Change{Kind: Deleted, Key: r.key, Old: r})
	}
	return changes, nil
}

// replace is "ue": the whole record after and before.
func (m *Mirror) replace(newText, oldText json.RawMessage) ([]Change, error) {
	after, err := m.rows.schema.Parse(newText)
	if err != nil {
		return nil, err
	}
	var changes []Change
	if old, err := m.rows.schema.Parse(oldText); err == nil && old.key != after.key {
		if r, ok := m.rows.delete(old.key); ok {
			changes = append(changes, Change{Kind: Deleted, Key: r.key, Old: r.Record})
		}
	}
	change, err := m.store(after, Created)
	if err != nil {
		return changes, err
	}
	if !change.Old.IsZero() {
		change.Kind = Updated
	}
	if change.Old.Equal(after) {
		return changes, nil
	}
	return append(changes, change), nil
}
