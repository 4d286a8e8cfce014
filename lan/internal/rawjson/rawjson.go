// Package rawjson takes JSON texts apart without decoding them: it checks a
// text once, within a depth, and hands out its parts as slices of it. Units,
// items and records pass through it on their way from the wire to the tables,
// so that nobody decodes what only travels on.
//
// It holds no state. Only the packages under lan import it.
package rawjson

import (
	"encoding/json"
	"errors"
	"fmt"
)

var (
	// ErrSyntax means that a text is not JSON, or not the kind that was asked for.
	ErrSyntax = errors.New("not JSON")
	// ErrDepth means that a text is nested deeper than allowed.
	ErrDepth = errors.New("JSON nested too deep")
)

// Value checks that text is one JSON value, nested at most depth deep, and
// returns it without the white space around it.
func Value(text []byte, depth int) (json.RawMessage, error) {
	from := space(text, 0)
	to, err := value(text, from, depth)
	if err != nil {
		return nil, err
	}
	if end := space(text, to); end != len(text) {
		return nil, mistake(end)
	}
	return text[from:to:to], nil
}

// Elements appends the elements of the array text to dst. They are slices of
// text. Depth counts the array itself.
func Elements(text []byte, depth int, dst []json.RawMessage) ([]json.RawMessage, error) {
	from := space(text, 0)
	if from == len(text) || text[from] != '[' {
		return dst, fmt.Errorf("%w array", ErrSyntax)
	}
	to, err := array(text, from, depth, func(element []byte) { dst = append(dst, element) })
	if err != nil {
		return dst, err
	}
	if end := space(text, to); end != len(text) {
		return dst, mistake(end)
	}
	return dst, nil
}

// Members calls visit with every key (decoded) and value of the object text,
// in their order; the slices are valid as long as text is. It may have called
// visit before it returns an error. Depth counts the object itself.
func Members(text []byte, depth int, visit func(key, value []byte)) error {
	from := space(text, 0)
	if from == len(text) || text[from] != '{' {
		return fmt.Errorf("%w object", ErrSyntax)
	}
	to, err := object(text, from, depth, visit)
	if err != nil {
		return err
	}
	if end := space(text, to); end != len(text) {
		return mistake(end)
	}
	return nil
}

// The functions below read one thing that begins at b[i] and return where it
// ends.

func value(b []byte, i, depth int) (int, error) {
	if i >= len(b) {
		return i, mistake(i)
	}
	switch b[i] {
	case '[':
		return array(b, i, depth, nil)
	case '{':
		return object(b, i, depth, nil)
	case '"':
		return text(b, i)
	case 't':
		return literal(b, i, "true")
	case 'f':
		return literal(b, i, "false")
	case 'n':
		return literal(b, i, "null")
	}
	return number(b, i)
}

func array(b []byte, i, depth int, visit func(element []byte)) (int, error) {
	if depth <= 0 {
		return i, ErrDepth
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1, nil
	}
	for {
		end, err := value(b, i, depth-1)
		if err != nil {
			return end, err
		}
		if visit != nil {
			visit(b[i:end:end])
		}
		i = space(b, end)
		switch {
		case i < len(b) && b[i] == ']':
			return i + 1, nil
		case i < len(b) && b[i] == ',':
			i = space(b, i+1)
		default:
			return i, mistake(i)
		}
	}
}

func object(b []byte, i, depth int, visit func(key, value []byte)) (int, error) {
	if depth <= 0 {
		return i, ErrDepth
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1, nil
	}
	for {
		key := i
		if i >= len(b) || b[i] != '"' {
			return i, mistake(i)
		}
		keyEnd, err := text(b, i)
		if err != nil {
			return keyEnd, err
		}
		i = space(b, keyEnd)
		if i >= len(b) || b[i] != ':' {
			return i, mistake(i)
		}
		i = space(b, i+1)
		end, err := value(b, i, depth-1)
		if err != nil {
			return end, err
		}
		if visit != nil {
			visit(unquote(b[key:keyEnd]), b[i:end:end])
		}
		i = space(b, end)
		switch {
		case i < len(b) && b[i] == '}':
			return i + 1, nil
		case i < len(b) && b[i] == ',':
			i = space(b, i+1)
		default:
			return i, mistake(i)
		}
	}
}

func text(b []byte, i int) (int, error) {
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1, nil
		case c < ' ':
			return i, mistake(i)
		case c == '\\':
			i++
			if i < len(b) && b[i] == 'u' {
				for range 4 {
					if i++; i >= len(b) || !hex(b[i]) {
						return i, mistake(i)
					}
				}
			} else if i >= len(b) || !escape(b[i]) {
				return i, mistake(i)
			}
		}
	}
	return i, mistake(i)
}

func number(b []byte, i int) (int, error) {
	if i < len(b) && b[i] == '-' {
		i++
	}
	start := i
	i = digits(b, i)
	if i == start || b[start] == '0' && i > start+1 {
		return start, mistake(start)
	}
	if i < len(b) && b[i] == '.' {
		start = i + 1
		if i = digits(b, start); i == start {
			return i, mistake(i)
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		start = i
		if i = digits(b, start); i == start {
			return i, mistake(i)
		}
	}
	return i, nil
}

func literal(b []byte, i int, word string) (int, error) {
	end := i + len(word)
	if end > len(b) || string(b[i:end]) != word {
		return i, mistake(i)
	}
	return end, nil
}

func digits(b []byte, i int) int {
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	return i
}

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

func hex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func escape(c byte) bool {
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	}
	return false
}

func mistake(at int) error { return fmt.Errorf("%w at byte %d", ErrSyntax, at) }
