package table

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// What one filter may hold, its parts together. It is matched with every record
// at every change, so that these limits are what a peer can make others wait.
const (
	maxFilterBytes = 64 << 10
	maxParts       = 64   // the filter itself, and what is inside of not, and and or
	maxValues      = 1024 // in the lists of in, nin and cidr_match, and in those of hash
	maxPatternSize = 256  // of regular expressions, repetitions written out
)

// compiler makes one filter.
type compiler struct {
	schema                 *Schema
	parts, values, pattern int // what may still come
}

func newCompiler(s *Schema) *compiler {
	return &compiler{schema: s, parts: maxParts, values: maxValues, pattern: maxPatternSize}
}

// descriptor is a filter as it is written: its members, nil if absent.
type descriptor struct {
	op                                         string
	field, value, flags, caseInsensitive, hash json.RawMessage
	filter, filters                            json.RawMessage
	iaddress, iport                            json.RawMessage
}

func readDescriptor(text json.RawMessage) (descriptor, error) {
	var d descriptor
	err := rawjson.Members(text, maxDepth, func(key, value []byte) {
		switch string(key) {
		case "op":
			d.op, _ = rawjson.String(value)
		case "field":
			d.field = value
		case "value":
			d.value = value
		case "flags":
			d.flags = value
		case "caseinsensitive":
			d.caseInsensitive = value
		case "d":
			d.hash = value
		case "filter":
			d.filter = value
		case "filters":
			d.filters = value
		case "iaddress":
			d.iaddress = value
		case "iport":
			d.iport = value
		}
	})
	return d, err
}

// errUnknown means that nobody knows the operator.
var errUnknown = errors.New("unknown operator")

// filter compiles the whole filter.
func (c *compiler) filter(text json.RawMessage) (Filter, error) {
	f, err := c.part(text)
	if errors.Is(err, errUnknown) {
		return Filter{}, nil
	}
	return f, err
}

// part compiles the filter or one inside of it.
func (c *compiler) part(text json.RawMessage) (Filter, error) {
	if c.parts--; c.parts < 0 {
		return Filter{}, fmt.Errorf("it has more than %d parts", maxParts)
	}
	if word, ok := rawjson.String(text); ok && word == unsatisfied && c.schema == Needs {
		return Filter{test: func(r Record) bool { return !satisfied(r) }, text: text}, nil
	}
	if len(text) == 0 || text[0] != '{' {
		return Filter{}, nil
	}
	d, err := readDescriptor(text)
	if err != nil || d.op == "" {
		return Filter{}, err
	}
	f, err := c.operator(d)
	if err != nil && !errors.Is(err, errUnknown) {
		return Filter{}, fmt.Errorf("operator %.20s: %w", d.op, err)
	}
	f.text = text
	return f, err
}

func (c *compiler) operator(d descriptor) (Filter, error) {
	var test func(Record) bool
	var err error
	switch d.op {
	case "near": // the original's lets everything pass, too
		return Filter{}, nil
	case "not":
		test, err = c.not(d)
	case "and", "or":
		test, err = c.several(d)
	case "hash":
		test, err = c.hash(d)
	case "natlookup":
		test = natLookup(d)
	default:
		return c.field(d)
	}
	return Filter{test: test}, err
}

func (c *compiler) not(d descriptor) (func(Record) bool, error) {
	if d.filter == nil {
		return nil, errors.New("filter is missing")
	}
	part, err := c.part(d.filter)
	if errors.Is(err, errUnknown) {
		return nil, errors.New("the filter in it has an unknown operator")
	}
	return func(r Record) bool { return !part.Match(r) }, err
}

// several compiles and and or. As on the original, a part of them with an
// unknown operator chooses nothing.
func (c *compiler) several(d descriptor) (func(Record) bool, error) {
	texts, err := rawjson.Elements(d.filters, maxDepth, nil)
	if err != nil {
		return nil, fmt.Errorf("filters: %w", err)
	}
	parts := make([]Filter, 0, min(len(texts), maxParts))
	for _, text := range texts {
		part, err := c.part(text)
		if errors.Is(err, errUnknown) {
			part, err = Filter{test: func(Record) bool { return false }}, nil
		}
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	if d.op == "and" {
		return func(r Record) bool {
			return !slices.ContainsFunc(parts, func(part Filter) bool { return !part.Match(r) })
		}, nil
	}
	return func(r Record) bool {
		return slices.ContainsFunc(parts, func(part Filter) bool { return part.Match(r) })
	}, nil
}

// hash chooses the records that have the values of the object d. What the
// schema lacks does not count.
func (c *compiler) hash(d descriptor) (func(Record) bool, error) {
	type member struct {
		field string
		want  operand
	}
	var members []member
	err := rawjson.Members(d.hash, maxDepth, func(key, value []byte) {
		if _, ok := c.schema.index[string(key)]; ok {
			members = append(members, member{string(key), operandOf(value)})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("d: %w", err)
	}
	if err := c.spendValues(len(members)); err != nil {
		return nil, err
	}
	return func(r Record) bool {
		return !slices.ContainsFunc(members, func(m member) bool { return !m.want.is(r.Get(m.field)) })
	}, nil
}

// natLookup chooses the entries for an inner address and port.
func natLookup(d descriptor) func(Record) bool {
	address, port := operandOf(d.iaddress), operandOf(d.iport)
	return func(r Record) bool {
		if !address.is(r.Get("iaddress")) {
			return false
		}
		entry := r.Get("iport")
		ends, err := rawjson.Elements(entry, maxDepth, nil)
		if err != nil {
			return port.is(entry)
		}
		if len(ends) != 2 {
			return false
		}
		from, fromOK := rawjson.Number(ends[0])
		to, toOK := rawjson.Number(ends[1])
		return fromOK && toOK && port.isNumber && from <= port.number && port.number <= to
	}
}

func (c *compiler) spendValues(n int) error {
	if c.values -= n; c.values < 0 {
		return fmt.Errorf("the lists have more than %d values", maxValues)
	}
	return nil
}

// list reads the value as an array.
func (c *compiler) list(d descriptor) ([]json.RawMessage, error) {
	elements, err := rawjson.Elements(d.value, maxDepth, nil)
	if err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	return elements, c.spendValues(len(elements))
}

// getter returns the function that takes a field out of a record. A name with a
// point inside is a path into the field's object, as on the original.
func getter(name string) func(Record) json.RawMessage {
	if strings.IndexByte(name, '.') <= 0 {
		return func(r Record) json.RawMessage { return r.Get(name) }
	}
	path := strings.Split(name, ".")
	return func(r Record) json.RawMessage {
		value := r.Get(path[0])
		for _, step := range path[1:] {
			if rawjson.IsNull(value) {
				break
			}
			value = member(value, step)
		}
		return value
	}
}

// member is one of an object's, nil if there is none or this is no object.
func member(object json.RawMessage, name string) json.RawMessage {
	var found json.RawMessage
	err := rawjson.Members(object, maxDepth, func(key, value []byte) {
		if string(key) == name {
			found = value
		}
	})
	if err != nil {
		return nil
	}
	return found
}
