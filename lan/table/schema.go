package table

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// maxDepth bounds the nesting of a record, a filter or an item.
const maxDepth = 64

// ErrNoKey means that a record lacks its key, or that the key is no string.
var ErrNoKey = errors.New("record without a key")

// Field is one field of a Schema.
type Field struct {
	Name    string
	Default string // JSON; what an absent field has. Null if empty
	Hidden  bool   // from queries, though not from those who own the table
}

// Schema says which fields the records of a table have (PROTOCOL section 6.1).
// It never changes.
type Schema struct {
	Name   string
	Key    []string // fields that no two records have alike
	Fields []Field

	index    map[string]int
	prefixes []string // of each value in a record's text: `,"name":`
	visible  []int    // what is not hidden
}

// The four tables of a LAN manager. They are values, never to be changed.
var (
	Needs = newSchema("needs", []string{"instancename"},
		Field{Name: "instancename"}, Field{Name: "modulename"},
		Field{Name: "propertyhash", Default: `{}`}, Field{Name: "strategies", Default: `{}`},
		Field{Name: "closed"}, Field{Name: "ipaddress"},
		Field{Name: "tcpport"}, Field{Name: "tcpoptions"},
		Field{Name: "httpport"}, Field{Name: "httpoptions"},
		Field{Name: "wsport"}, Field{Name: "wsoptions"},
		Field{Name: "pid"}, Field{Name: "debug"}, Field{Name: "debug_brk"}, Field{Name: "prof"},
		Field{Name: "gate"}, Field{Name: "timeout", Default: `60`})

	Services = newSchema("services", []string{"instancename"},
		Field{Name: "instancename"}, Field{Name: "modulename"},
		Field{Name: "propertyhash"}, Field{Name: "strategies", Default: `{}`},
		Field{Name: "ipaddress"},
		Field{Name: "tcpport", Default: `0`}, Field{Name: "tcpoptions"},
		Field{Name: "httpport", Default: `0`}, Field{Name: "httpoptions"},
		Field{Name: "wsport", Default: `0`}, Field{Name: "wsoptions"},
		Field{Name: "debug"}, Field{Name: "debug_brk"}, Field{Name: "prof"},
		Field{Name: "gate"}, Field{Name: "created", Hidden: true})

	NATs = newSchema("nat", []string{"iaddress", "iport"},
		Field{Name: "iaddress"}, Field{Name: "iport"}, Field{Name: "eaddress"}, Field{Name: "eport"})

	EngagedModules = newSchema("engaged_modules", []string{"modulename"}, Field{Name: "modulename"})
)

func newSchema(name string, key []string, fields ...Field) *Schema {
	s := &Schema{Name: name, Key: key, Fields: fields, index: make(map[string]int)}
	for i, field := range fields {
		s.index[field.Name] = i
		s.prefixes = append(s.prefixes, `,"`+field.Name+`":`)
		if !field.Hidden {
			s.visible = append(s.visible, i)
		}
	}
	s.prefixes[0] = `{` + s.prefixes[0][1:]
	return s
}

// Parse reads a record from a JSON object and keeps nothing of text. Absent
// fields get their default, explicit nulls stay, unknown fields are dropped.
func (s *Schema) Parse(text json.RawMessage) (Record, error) {
	values := make([][]byte, len(s.Fields))
	if err := s.read(text, values); err != nil {
		return Record{}, fmt.Errorf("record of %s: %w", s.Name, err)
	}
	for i, value := range values {
		switch {
		case value != nil:
		case s.Fields[i].Default != "":
			values[i] = []byte(s.Fields[i].Default)
		default:
			values[i] = []byte(`null`)
		}
	}
	return s.build(values)
}

// read puts the known members of the object text in their places.
func (s *Schema) read(text []byte, values [][]byte) error {
	return rawjson.Members(text, maxDepth, func(key, value []byte) {
		if i, ok := s.index[string(key)]; ok {
			values[i] = value
		}
	})
}

func (s *Schema) build(values [][]byte) (Record, error) {
	key, err := s.keyOf(values)
	if err != nil {
		return Record{}, err
	}
	size := 1
	for i, value := range values {
		size += len(s.prefixes[i]) + len(value)
	}
	r := Record{schema: s, key: key, text: make([]byte, 0, size), ends: make([]uint32, len(values))}
	for i, value := range values {
		r.text = append(append(r.text, s.prefixes[i]...), value...)
		r.ends[i] = uint32(len(r.text))
	}
	r.text = append(r.text, '}')
	return r, nil
}

// keyOf makes the key of a record: the string itself, or the JSON of an array
// where a schema has more than one key field.
func (s *Schema) keyOf(values [][]byte) (string, error) {
	if len(s.Key) == 1 {
		key, ok := rawjson.String(values[s.index[s.Key[0]]])
		if !ok || key == "" {
			return "", fmt.Errorf("%w: %s of %s", ErrNoKey, s.Key[0], s.Name)
		}
		return key, nil
	}
	key := []byte{'['}
	for i, name := range s.Key {
		value := values[s.index[name]]
		if rawjson.IsNull(value) {
			return "", fmt.Errorf("%w: %s of %s", ErrNoKey, name, s.Name)
		}
		if i > 0 {
			key = append(key, ',')
		}
		key = append(key, value...)
	}
	return string(append(key, ']')), nil
}

func (s *Schema) isKey(field int) bool { return slices.Contains(s.Key, s.Fields[field].Name) }
