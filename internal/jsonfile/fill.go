package jsonfile

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// fill sets v to what n says and notes what does not fit.
func (d *Document) fill(path string, n *node, v reflect.Value) {
	if u, ok := v.Addr().Interface().(json.Unmarshaler); ok {
		if err := u.UnmarshalJSON(d.data[n.start:n.end]); err != nil {
			d.spoil(path, n.start, "%s", err)
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.fillStruct(path, n, v)
	case reflect.Map:
		d.fillMap(path, n, v)
	case reflect.Slice:
		d.fillSlice(path, n, v)
	case reflect.Pointer:
		if n.value != nil { // null leaves it as it is
			v.Set(reflect.New(v.Type().Elem()))
			d.fill(path, n, v.Elem())
		}
	default:
		d.fillScalar(path, n, v)
	}
}

func (d *Document) fillStruct(path string, n *node, v reflect.Value) {
	if n.value != json.Delim('{') {
		d.wrongType(path, n, "an object")
		return
	}
	names, fields := known(v.Type())
	present := map[string]bool{}
	for _, m := range n.members {
		present[m.key] = true
	}
	for _, m := range n.members {
		inner := join(path, m.key)
		if i, ok := fields[m.key]; ok {
			d.fill(inner, m.value, v.Field(i))
			continue
		}
		like := ""
		if name := Nearest(m.key, names); name != "" && !present[name] {
			like = fmt.Sprintf("; did you mean %q?", name)
			d.spoiled[join(path, name)] = true // that it is missing need not be said as well
		}
		d.spoil(inner, m.offset, "unknown key%s Allowed: %s", cmp.Or(like, "."), strings.Join(names, ", "))
	}
}

// known returns the keys of a struct in the order of its fields, and the field
// of each.
func known(t reflect.Type) (names []string, fields map[string]int) {
	fields = map[string]int{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name != "" && name != "-" {
			names = append(names, name)
			fields[name] = i
		}
	}
	return names, fields
}

func (d *Document) fillMap(path string, n *node, v reflect.Value) {
	if n.value != json.Delim('{') {
		d.wrongType(path, n, "an object")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, m := range n.members {
		value := reflect.New(v.Type().Elem()).Elem()
		d.fill(join(path, m.key), m.value, value)
		v.SetMapIndex(reflect.ValueOf(m.key).Convert(v.Type().Key()), value)
	}
}

func (d *Document) fillSlice(path string, n *node, v reflect.Value) {
	if n.value != json.Delim('[') {
		d.wrongType(path, n, "an array")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.elements), len(n.elements)))
	for i, element := range n.elements {
		d.fill(index(path, i), element, v.Index(i))
	}
}

func (d *Document) fillScalar(path string, n *node, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if s, ok := n.value.(string); ok {
			v.SetString(s)
			return
		}
		d.wrongType(path, n, "a string")
	case reflect.Bool:
		if b, ok := n.value.(bool); ok {
			v.SetBool(b)
			return
		}
		d.wrongType(path, n, "true or false")
	case reflect.Int:
		number, _ := n.value.(json.Number)
		if i, err := strconv.ParseInt(number.String(), 10, strconv.IntSize); err == nil {
			v.SetInt(i)
			return
		}
		d.wrongType(path, n, "a whole number")
	default:
		panic("jsonfile: no JSON for " + v.Type().String())
	}
}

func (d *Document) wrongType(path string, n *node, wanted string) {
	d.spoil(path, n.start, "found %s, wanted %s", n, wanted)
}

// String names a value in a message.
func (n *node) String() string {
	switch value := n.value.(type) {
	case json.Delim:
		if value == '{' {
			return "an object"
		}
		return "an array"
	case string:
		if runes := []rune(value); len(runes) > 40 {
			return fmt.Sprintf("the string %q...", string(runes[:40]))
		}
		return fmt.Sprintf("the string %q", value)
	case json.Number:
		return "the number " + value.String()
	case nil:
		return "null"
	default:
		return fmt.Sprint(value)
	}
}
