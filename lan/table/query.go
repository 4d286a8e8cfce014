package table

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// Query asks a Table for its records (PROTOCOL section 6). The zero value asks
// for all of them, once.
type Query struct {
	Continuous    bool // go on telling what changes
	Filter        Filter
	VisibleFields []string // nil: all that are not hidden
	// Of the records that the filter chooses, in the order in which they came
	// to the table, those behind the first Offset, and at most Limit of them;
	// Limit 0 is all. Continuous with one of them shows at every moment what a
	// reading would: a record that leaves this part of the table lets the next
	// one in. (A client that keeps them has the same records as a reading, but
	// not always in the same order.)
	Limit, Offset int
}

// ParseQuery reads the argument of the method query and keeps nothing of text.
// Null is the zero value; unknown members are ignored.
func ParseQuery(s *Schema, text json.RawMessage) (Query, error) {
	var q Query
	if len(text) == 0 || string(text) == "null" {
		return q, nil
	}
	var problem error
	err := rawjson.Members(text, maxDepth, func(key, value []byte) {
		var err error
		switch string(key) {
		case "continuous":
			q.Continuous = string(value) == "true"
		case "filter":
			q.Filter, err = ParseFilter(s, value)
		case "visiblefields":
			q.VisibleFields, err = parseNames(value)
		case "limit":
			q.Limit, err = parseCount(value)
		case "offset":
			q.Offset, err = parseCount(value)
		}
		if err != nil && problem == nil {
			problem = fmt.Errorf("%s: %w", key, err)
		}
	})
	if err == nil {
		err = problem
	}
	if err != nil {
		return Query{}, fmt.Errorf("query: %w", err)
	}
	return q, nil
}

func parseNames(value []byte) ([]string, error) {
	if rawjson.IsNull(value) {
		return nil, nil
	}
	elements, err := rawjson.Elements(value, maxDepth, nil)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(elements))
	for _, element := range elements {
		name, ok := rawjson.String(element)
		if !ok {
			return nil, errors.New("a field's name is no string")
		}
		names = append(names, name)
	}
	return names, nil
}

func parseCount(value []byte) (int, error) {
	n, ok := rawjson.Int(value)
	if !ok && !rawjson.IsNull(value) || n < 0 {
		return 0, errors.New("it is no count")
	}
	return n, nil
}

// fields returns the places of the visible fields, in the order of the schema;
// nil for the usual ones.
func (q Query) fields(s *Schema) []int {
	if q.VisibleFields == nil {
		return nil
	}
	fields := []int{}
	for _, name := range q.VisibleFields {
		if i, ok := s.index[name]; ok && !s.Fields[i].Hidden {
			fields = append(fields, i)
		}
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}
