package table

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// unsatisfied is the one filter that is a word. Only Needs know it.
const unsatisfied = "unsatisfied"

// Filter chooses records (PROTOCOL section 6). The zero value chooses all.
type Filter struct {
	test  func(Record) bool // nil: all
	field string            // of eq, "" for others
	value json.RawMessage   // of eq
	text  json.RawMessage   // nil: null
}

// ParseFilter reads a filter descriptor and keeps nothing of text. As on the
// original, what has no operator, or one that is not known, chooses all; an
// error is that the text is not JSON, that a known operator lacks what it needs,
// or that the filter would cost too much (see the limits in compile.go). Its text
// goes on after a word for what was parsed, such as "filter: ".
func ParseFilter(s *Schema, text json.RawMessage) (Filter, error) {
	if len(text) == 0 {
		return Filter{}, nil
	}
	value, err := rawjson.Value(bytes.Clone(text), maxDepth)
	if err != nil {
		return Filter{}, err
	}
	return parseFilter(s, value)
}

// parseFilter is ParseFilter for a text that stays and has been checked.
func parseFilter(s *Schema, text json.RawMessage) (Filter, error) {
	if len(text) > maxFilterBytes {
		return Filter{}, fmt.Errorf("it has %d bytes, at most %d are allowed", len(text), maxFilterBytes)
	}
	return newCompiler(s).filter(text)
}

// Eq is the filter for records whose field has the value, anything that has a
// JSON form.
func Eq(field string, value any) Filter {
	text, err := json.Marshal(value)
	if err != nil {
		text = []byte(`null`)
	}
	f := equality(field, text)
	f.text = appendEq(nil, field, text)
	return f
}

func equality(field string, value json.RawMessage) Filter {
	want, get := operandOf(value), getter(field)
	return Filter{test: func(r Record) bool { return want.is(get(r)) }, field: field, value: value}
}

func appendEq(dst []byte, field string, value json.RawMessage) []byte {
	dst = rawjson.AppendString(append(dst, `{"op":"eq","field":`...), field)
	dst = append(append(dst, `,"value":`...), value...)
	return append(dst, '}')
}

// MarshalJSON gives the descriptor back as it was parsed; null for all.
func (f Filter) MarshalJSON() ([]byte, error) {
	if f.text == nil {
		return []byte(`null`), nil
	}
	return f.text, nil
}

// Match says whether the filter chooses the record.
func (f Filter) Match(r Record) bool { return f.test == nil || f.test(r) }

// key returns the one key that the filter chooses, if it is that simple.
func (f Filter) key(s *Schema) (string, bool) {
	if len(s.Key) != 1 || f.field != s.Key[0] {
		return "", false
	}
	return rawjson.String(f.value)
}
