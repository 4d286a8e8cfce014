package table

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// unsatisfied is the one filter that is a word. Only Needs know it.
const unsatisfied = "unsatisfied"

// Filter chooses records (PROTOCOL section 6). The zero value chooses all.
type Filter struct {
	op    string // "": all
	field string
	value json.RawMessage
	list  []json.RawMessage // the elements of value, for in and nin
	parts []Filter
	text  json.RawMessage // nil: null
}

// ParseFilter reads a filter descriptor and keeps nothing of text. As on the
// original, what has no operator, or one that is not known, chooses all; an
// error is that the text is not JSON, or that a known operator lacks what it
// needs.
func ParseFilter(s *Schema, text json.RawMessage) (Filter, error) {
	if len(text) == 0 {
		return Filter{}, nil
	}
	var f Filter
	value, err := rawjson.Value(bytes.Clone(text), maxDepth)
	if err == nil {
		f, err = parseFilter(s, value)
	}
	if err != nil {
		return Filter{}, fmt.Errorf("filter: %w", err)
	}
	return f, nil
}

// Eq is the filter for records whose field has the value, anything that has a
// JSON form.
func Eq(field string, value any) Filter {
	text, err := json.Marshal(value)
	if err != nil {
		text = []byte(`null`)
	}
	return Filter{op: "eq", field: field, value: text, text: appendEq(nil, field, text)}
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

// parseFilter is ParseFilter for a text that stays and has been checked.
func parseFilter(s *Schema, text json.RawMessage) (Filter, error) {
	if word, ok := rawjson.String(text); ok && word == unsatisfied && s == Needs {
		return Filter{op: unsatisfied, text: text}, nil
	}
	if len(text) == 0 || text[0] != '{' {
		return Filter{}, nil
	}
	f := Filter{text: text, value: json.RawMessage(`null`)}
	var one, several, field json.RawMessage
	err := rawjson.Members(text, maxDepth, func(key, value []byte) {
		switch string(key) {
		case "op":
			f.op, _ = rawjson.String(value)
		case "field":
			field = value
		case "value":
			f.value = value
		case "filter":
			one = value
		case "filters":
			several = value
		}
	})
	if err != nil {
		return Filter{}, err
	}
	switch f.op {
	case "not":
		err = f.parseParts(s, []json.RawMessage{one})
	case "and", "or":
		var parts []json.RawMessage
		if parts, err = rawjson.Elements(several, maxDepth, nil); err == nil {
			err = f.parseParts(s, parts)
		}
	case "exists", "notexists", "eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "startswith", "endswith", "contains":
		err = f.parseOperands(field)
	default:
		return Filter{}, nil
	}
	if err != nil {
		return Filter{}, fmt.Errorf("operator %s: %w", f.op, err)
	}
	return f, nil
}

func (f *Filter) parseParts(s *Schema, texts []json.RawMessage) error {
	for _, text := range texts {
		part, err := parseFilter(s, text)
		if err != nil {
			return err
		}
		f.parts = append(f.parts, part)
	}
	return nil
}

func (f *Filter) parseOperands(field json.RawMessage) error {
	var ok bool
	if f.field, ok = rawjson.String(field); !ok {
		return fmt.Errorf("field is missing or no string")
	}
	if f.op != "in" && f.op != "nin" {
		return nil
	}
	var err error
	f.list, err = rawjson.Elements(f.value, maxDepth, nil)
	return err
}

// Match says whether the filter chooses the record.
func (f Filter) Match(r Record) bool {
	has := func(part Filter) bool { return part.Match(r) }
	switch f.op {
	case "":
		return true
	case unsatisfied:
		return !satisfied(r)
	case "not":
		return !f.parts[0].Match(r)
	case "and":
		return !slices.ContainsFunc(f.parts, func(part Filter) bool { return !part.Match(r) })
	case "or":
		return slices.ContainsFunc(f.parts, has)
	}
	value := r.Get(f.field)
	switch f.op {
	case "exists":
		return !rawjson.IsNull(value)
	case "notexists":
		return rawjson.IsNull(value)
	case "eq":
		return same(value, f.value)
	case "ne":
		return !same(value, f.value)
	case "in", "nin":
		listed := slices.ContainsFunc(f.list, func(one json.RawMessage) bool { return same(value, one) })
		return listed == (f.op == "in")
	case "gt", "gte", "lt", "lte":
		return f.matchOrder(value)
	}
	return f.matchText(value)
}

// matchOrder compares numbers with numbers and strings with strings; nothing
// else has an order.
func (f Filter) matchOrder(value json.RawMessage) bool {
	var order int
	if a, ok := rawjson.Number(value); ok {
		b, ok := rawjson.Number(f.value)
		if !ok {
			return false
		}
		order = cmp.Compare(a, b)
	} else {
		a, ok := rawjson.String(value)
		b, isText := rawjson.String(f.value)
		if !ok || !isText {
			return false
		}
		order = cmp.Compare(a, b)
	}
	switch f.op {
	case "gt":
		return order > 0
	case "gte":
		return order >= 0
	case "lt":
		return order < 0
	}
	return order <= 0
}

func (f Filter) matchText(value json.RawMessage) bool {
	s, ok := rawjson.String(value)
	part, isText := rawjson.String(f.value)
	if !ok || !isText {
		return false
	}
	switch f.op {
	case "startswith":
		return strings.HasPrefix(s, part)
	case "endswith":
		return strings.HasSuffix(s, part)
	}
	return strings.Contains(s, part)
}

// same says whether two values are the same scalar, or the same text. A field
// that the schema lacks is the same as nothing.
func same(a, b json.RawMessage) bool {
	if a == nil {
		return false
	}
	if bytes.Equal(a, b) {
		return true
	}
	if x, ok := rawjson.Number(a); ok {
		y, ok := rawjson.Number(b)
		return ok && x == y
	}
	x, ok := rawjson.String(a)
	y, isText := rawjson.String(b)
	return ok && isText && x == y
}

// key returns the one key that the filter chooses, if it is that simple.
func (f Filter) key(s *Schema) (string, bool) {
	if f.op != "eq" || len(s.Key) != 1 || f.field != s.Key[0] {
		return "", false
	}
	return rawjson.String(f.value)
}
