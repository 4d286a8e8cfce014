package table

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// maxMatchedText bounds the texts that regular expressions look at. They choose
// no record whose text is longer.
const maxMatchedText = 1024

// field compiles an operator on one field.
func (c *compiler) field(d descriptor) (Filter, error) {
	var test func(value json.RawMessage) bool
	var err error
	name, named := rawjson.String(d.field)
	switch d.op {
	case "eq":
		if named {
			return equality(name, orNull(d.value)), nil
		}
	case "ne":
		want := operandOf(orNull(d.value))
		test = func(value json.RawMessage) bool { return !want.is(value) }
	case "exists":
		test = func(value json.RawMessage) bool { return !rawjson.IsNull(value) }
	case "notexists":
		test = func(value json.RawMessage) bool { return rawjson.IsNull(value) }
	case "gt", "gte", "lt", "lte":
		test = order(d)
	case "in", "nin":
		test, err = c.in(d)
	case "startswith", "endswith", "contains":
		test, err = text(d)
	case "regex":
		test, err = c.regexp(d)
	case "bitmaskany", "bitmaskall":
		test, err = bitmask(d)
	case "cidr_match":
		test, err = c.cidr(d)
	default:
		return Filter{}, errUnknown
	}
	if !named {
		return Filter{}, errors.New("field is missing or no string")
	}
	get := getter(name)
	return Filter{test: func(r Record) bool { return test(get(r)) }}, err
}

func orNull(value json.RawMessage) json.RawMessage {
	if value == nil {
		return json.RawMessage(`null`)
	}
	return value
}

func order(d descriptor) func(json.RawMessage) bool {
	want := operandOf(orNull(d.value))
	return func(value json.RawMessage) bool {
		it := operandOf(value)
		order, ok := it.compare(&want)
		if !ok {
			return false
		}
		switch d.op {
		case "gt":
			return order > 0
		case "gte":
			return order >= 0
		case "lt":
			return order < 0
		}
		return order <= 0
	}
}

func (c *compiler) in(d descriptor) (func(json.RawMessage) bool, error) {
	elements, err := c.list(d)
	if err != nil {
		return nil, err
	}
	wanted := make([]operand, len(elements))
	for i, element := range elements {
		wanted[i] = operandOf(element)
	}
	return func(value json.RawMessage) bool {
		it := operandOf(value)
		listed := false
		for i := range wanted {
			listed = listed || wanted[i].same(&it)
		}
		return listed == (d.op == "in")
	}, nil
}

func text(d descriptor) (func(json.RawMessage) bool, error) {
	want, ok := rawjson.String(d.value)
	if !ok {
		return nil, errors.New("value is no string")
	}
	test := strings.Contains
	switch d.op {
	case "startswith":
		test = strings.HasPrefix
	case "endswith":
		test = strings.HasSuffix
	}
	insensitive := string(d.caseInsensitive) == "true"
	if insensitive {
		want = strings.ToLower(want)
	}
	return func(value json.RawMessage) bool {
		s, ok := rawjson.String(value)
		if insensitive {
			s = strings.ToLower(s)
		}
		return ok && test(s, want)
	}, nil
}

// regexp compiles a regular expression of RE2, which has no form that takes long.
func (c *compiler) regexp(d descriptor) (func(json.RawMessage) bool, error) {
	pattern, ok := rawjson.String(d.value)
	if !ok {
		return nil, errors.New("value is no string")
	}
	flags, ok := rawjson.String(d.flags)
	if !ok && !rawjson.IsNull(d.flags) {
		return nil, errors.New("flags are no string")
	}
	for _, flag := range flags {
		switch flag {
		case 'i', 'm', 's':
			pattern = "(?" + string(flag) + ")" + pattern
		case 'd', 'g', 'u', 'v', 'y': // they do not change what is found
		default:
			return nil, fmt.Errorf("unknown flag %q", flag)
		}
	}
	if len(pattern) > maxPatternSize {
		return nil, fmt.Errorf("the pattern has %d bytes, at most %d are allowed", len(pattern), maxPatternSize)
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	if c.pattern -= patternSize(tree); c.pattern < 0 {
		return nil, fmt.Errorf("with its repetitions written out the pattern has more than %d steps", maxPatternSize)
	}
	expression, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	return func(value json.RawMessage) bool {
		s, ok := rawjson.String(value)
		return ok && len(s) <= maxMatchedText && expression.MatchString(s)
	}, nil
}

// patternSize is about the number of steps of the program that a pattern becomes.
func patternSize(tree *syntax.Regexp) int {
	if tree.Op == syntax.OpLiteral {
		return len(tree.Rune)
	}
	size := 0
	for _, part := range tree.Sub {
		size += patternSize(part)
	}
	if tree.Op == syntax.OpRepeat {
		size *= max(tree.Min+1, tree.Max)
	}
	return size + 1
}

// bitmask chooses by bits of a number of 32. What is no number has none.
func bitmask(d descriptor) (func(json.RawMessage) bool, error) {
	mask, err := readMask(d.value)
	if err != nil {
		return nil, err
	}
	return func(value json.RawMessage) bool {
		it := operandOf(value)
		bits := it.bits()
		if d.op == "bitmaskall" {
			return bits&mask == mask
		}
		return bits&mask != 0
	}, nil
}

// readMask reads a number, or an array of the places of bits.
func readMask(value json.RawMessage) (uint32, error) {
	places, err := rawjson.Elements(value, maxDepth, nil)
	if err != nil {
		if _, ok := rawjson.Number(value); !ok {
			return 0, errors.New("value is neither a number nor an array")
		}
		it := operandOf(value)
		return it.bits(), nil
	}
	var mask uint32
	for _, text := range places {
		place, ok := rawjson.Int(text)
		if !ok || place < 0 || place > 31 {
			return 0, fmt.Errorf("the place of a bit is %.20s, not 0 to 31", text)
		}
		mask |= 1 << place
	}
	return mask, nil
}
