package jsonfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a file, and with it the length of a path.
const maxDepth = 100

// node is a value of the document with its place.
type node struct {
	value      any // json.Delim '{' or '[', string, json.Number, bool or nil
	start, end int // offsets
	members    []member
	elements   []*node
}

type member struct {
	key    string
	offset int // of the key
	value  *node
}

// parse returns the tree of the document, or nil and a mistake if it is not
// JSON. On the way it notes the places of all values and finds duplicate keys.
func (d *Document) parse() *node {
	if offset, text := flaw(d.data); text != "" {
		d.spoil("", offset, "%s", text)
		return nil
	}
	t := tree{doc: d, dec: json.NewDecoder(bytes.NewReader(d.data))}
	t.dec.UseNumber()
	return t.value("")
}

// flaw finds what keeps data from being a JSON document; an empty text is none.
func flaw(data []byte) (offset int, text string) {
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		return 0, "the file begins with a byte order mark; save it without one"
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return 0, "the file is empty, wanted a JSON document"
	}
	if offset := invalidUTF8(data); offset >= 0 {
		return offset, "broken JSON: not UTF-8"
	}
	if offset := tooDeep(data); offset >= 0 {
		return offset, fmt.Sprintf("nested deeper than %d", maxDepth)
	}
	var whole json.RawMessage
	var syntax *json.SyntaxError
	if err := json.Unmarshal(data, &whole); errors.As(err, &syntax) {
		offset = int(syntax.Offset) - 1 // Offset counts the bad byte
		bad, _ := utf8.DecodeRune(data[offset:])
		// The error takes the first byte of a character, say of a typographic quote, for all of it.
		return offset, "broken JSON: " + strings.Replace(err.Error(), strconv.QuoteRune(rune(data[offset])), strconv.QuoteRune(bad), 1)
	}
	return 0, ""
}

func invalidUTF8(data []byte) (offset int) {
	for offset < len(data) {
		r, size := utf8.DecodeRune(data[offset:])
		if r == utf8.RuneError && size == 1 {
			return offset
		}
		offset += size
	}
	return -1
}

// tooDeep finds the bracket that passes maxDepth, or -1.
func tooDeep(data []byte) (offset int) {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return i
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return -1
}

// tree builds nodes. The text is known to be JSON, so tokens never fail.
type tree struct {
	doc *Document
	dec *json.Decoder
}

// token reads the next token; start is the offset of its first byte.
func (t *tree) token() (token json.Token, start int) {
	start = int(t.dec.InputOffset())
	start += len(t.doc.data[start:]) - len(bytes.TrimLeft(t.doc.data[start:], " \t\r\n,:"))
	token, _ = t.dec.Token()
	return token, start
}

func (t *tree) value(path string) *node {
	token, start := t.token()
	n := &node{value: token, start: start}
	t.doc.places[path] = start
	switch token {
	case json.Delim('{'):
		t.object(path, n)
		t.token()
	case json.Delim('['):
		for t.dec.More() {
			n.elements = append(n.elements, t.value(index(path, len(n.elements))))
		}
		t.token()
	}
	n.end = int(t.dec.InputOffset())
	return n
}

func (t *tree) object(path string, n *node) {
	seen := map[string]int{}
	for t.dec.More() {
		token, offset := t.token()
		key := token.(string)
		inner := join(path, key)
		if first, ok := seen[key]; ok {
			line, _ := t.doc.position(first)
			t.doc.spoil(inner, offset, "duplicate key; the first is in line %d", line)
		} else {
			seen[key] = offset
		}
		n.members = append(n.members, member{key: key, offset: offset, value: t.value(inner)})
	}
}

func join(path, key string) string {
	switch {
	case key == "" || strings.ContainsFunc(key, needsQuotes):
		return path + "[" + strconv.Quote(key) + "]"
	case path == "":
		return key
	default:
		return path + "." + key
	}
}

func needsQuotes(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-')
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
