// Package jsonfile reads and writes the JSON files of this project: strictly,
// with every mistake of a file in one error, and so that a crash leaves either
// the old file or the new one.
//
// It holds no state. Whoever has files may import it (agent/config,
// agent/module, agent/state, lanmanager); it imports nothing of the project.
package jsonfile

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// Mistake is one thing that is wrong in a file.
type Mistake struct {
	Path         string // such as "portrangestart.tcp" or "command[0]"; empty: the whole document
	Message      string // what was found, what is allowed, what to do
	Line, Column int    // from 1, the column in characters; Line 0: not known
}

// Error is all that is wrong in one file, in the order of the file.
type Error struct {
	File     string
	Mistakes []Mistake
}

// Error lists the mistakes one per line as "file:line:column: path: message".
func (e *Error) Error() string {
	var b strings.Builder
	for i, m := range e.Mistakes {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.File)
		if m.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", m.Line, m.Column)
		}
		b.WriteString(": ")
		if m.Path != "" {
			b.WriteString(m.Path + ": ")
		}
		b.WriteString(m.Message)
	}
	return b.String()
}

// Decode strictly decodes data, the content of the file name, into v, a pointer
// to a struct or a slice. What data does not mention keeps its value, so
// defaults are set before. Keys are the names in the json tags, in that very
// spelling; embedded structs are not looked into. Mistakes are broken JSON,
// unknown and duplicate keys, wrong types and whatever follows the document.
// The error is an *Error; what was right has been set even then.
func Decode(name string, data []byte, v any) error { return Read(name, data, v).Err() }

// Document is a file that was read. A caller that checks more than the form adds
// its mistakes here, so that they come in one error with their place in the
// file. It belongs to one goroutine.
type Document struct {
	name     string
	data     []byte
	places   map[string]int  // offset of the value at each path
	spoiled  map[string]bool // paths of which a mistake of form is known
	mistakes []Mistake
}

// Read decodes like Decode and keeps the mistakes for Err.
func Read(name string, data []byte, v any) *Document {
	d := &Document{name: name, data: data, places: map[string]int{}, spoiled: map[string]bool{}}
	if root := d.parse(); root != nil {
		d.fill("", root, reflect.ValueOf(v).Elem())
	}
	return d
}

// Add adds a mistake of meaning at path. It is dropped if it would only repeat a
// mistake of form: where path, something above or something below it could not
// be read.
func (d *Document) Add(path, format string, args ...any) {
	if !d.isSpoiled(path) {
		d.add(path, d.place(path), format, args...)
	}
}

// Err is nil or an *Error with all mistakes.
func (d *Document) Err() error {
	if len(d.mistakes) == 0 {
		return nil
	}
	slices.SortStableFunc(d.mistakes, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Error{File: d.name, Mistakes: slices.Clone(d.mistakes)}
}

// spoil adds a mistake of form.
func (d *Document) spoil(path string, offset int, format string, args ...any) {
	d.spoiled[path] = true
	d.add(path, offset, format, args...)
}

func (d *Document) add(path string, offset int, format string, args ...any) {
	line, column := d.position(offset)
	d.mistakes = append(d.mistakes, Mistake{
		Path: path, Message: fmt.Sprintf(format, args...), Line: line, Column: column})
}

func (d *Document) position(offset int) (line, column int) {
	before := d.data[:offset]
	line = 1 + bytes.Count(before, []byte("\n"))
	return line, 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
}

// place is the offset of the value at path, or of the nearest one above that is
// in the file.
func (d *Document) place(path string) int {
	for {
		if offset, ok := d.places[path]; ok || path == "" {
			return offset
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
}

func (d *Document) isSpoiled(path string) bool {
	if d.spoiled[""] {
		return true
	}
	for known := range d.spoiled {
		if within(known, path) || within(path, known) {
			return true
		}
	}
	return false
}

// within tells whether path is outer or, unless that is the whole document, lies
// in it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || outer != "" && (rest[0] == '.' || rest[0] == '['))
}
