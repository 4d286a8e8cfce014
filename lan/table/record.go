package table

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// Record is an immutable record of a schema: its JSON text in the schema's
// order, and where each value ends in it. It owns its memory. The zero value is
// no record.
type Record struct {
	schema *Schema
	key    string
	text   []byte
	ends   []uint32
}

// IsZero says whether this is no record.
func (r Record) IsZero() bool { return r.schema == nil }

// Key identifies the record in its table: the value of the key field, or the
// JSON array of the values where there are several.
func (r Record) Key() string { return r.key }

// JSON is the record's text with every field. It must not be changed.
func (r Record) JSON() json.RawMessage { return r.text }

// MarshalJSON implements json.Marshaler.
func (r Record) MarshalJSON() ([]byte, error) {
	if r.IsZero() {
		return []byte(`null`), nil
	}
	return r.text, nil
}

// Equal says whether two records have the same text.
func (r Record) Equal(o Record) bool { return r.schema == o.schema && bytes.Equal(r.text, o.text) }

// Get returns the value of a field, nil if the schema has no such field. It
// must not be changed.
func (r Record) Get(field string) json.RawMessage {
	if r.schema == nil {
		return nil
	}
	i, ok := r.schema.index[field]
	if !ok {
		return nil
	}
	return r.at(i)
}

func (r Record) at(i int) json.RawMessage {
	start := len(r.schema.prefixes[i])
	if i > 0 {
		start += int(r.ends[i-1])
	}
	end := r.ends[i]
	return r.text[start:end:end]
}

// Text returns the value of a field, "" if it is no string.
func (r Record) Text(field string) string {
	s, _ := rawjson.String(r.Get(field))
	return s
}

// Int returns the value of a field, 0 if it is no whole number.
func (r Record) Int(field string) int {
	n, _ := rawjson.Int(r.Get(field))
	return n
}

// With returns the record with the fields of the JSON object partial instead of
// its own. Key fields stay as they are; unknown fields are dropped.
func (r Record) With(partial json.RawMessage) (Record, error) {
	values := make([][]byte, len(r.ends))
	if err := r.schema.read(partial, values); err != nil {
		return Record{}, fmt.Errorf("change of %s in %s: %w", r.key, r.schema.Name, err)
	}
	same := true
	for i, value := range values {
		if value == nil || r.schema.isKey(i) {
			values[i] = r.at(i)
		} else {
			same = same && bytes.Equal(value, r.at(i))
		}
	}
	if same {
		return r, nil
	}
	return r.schema.build(values)
}

// appendFields appends the object of some of the fields.
func (r Record) appendFields(dst []byte, fields []int) []byte {
	dst = append(dst, '{')
	for n, i := range fields {
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, r.schema.prefixes[i][1:]...), r.at(i)...)
	}
	return append(dst, '}')
}

// changed returns those of fields that are not the same in both.
func changed(before, after Record, fields []int) []int {
	var differing []int
	for _, i := range fields {
		if !bytes.Equal(before.at(i), after.at(i)) {
			differing = append(differing, i)
		}
	}
	return differing
}
