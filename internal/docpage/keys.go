package docpage

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// Keys is a table of the keys of a JSON file: v is the struct that it is read
// into, with the defaults in it, and source the Go file that declares it, where the
// comment at each field tells what its key means. A type of which there are
// several keys is told at the first. The error names the first key that has no
// comment.
func Keys(source string, v any) (string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), source, nil, parser.ParseComments)
	if err != nil {
		return "", err
	}
	k := keys{meanings: meanings(file), told: map[reflect.Type]bool{}}
	k.WriteString("| key | type | default | meaning |\n|---|---|---|---|\n")
	err = k.structure("", reflect.ValueOf(v))
	return k.String(), err
}

type keys struct {
	strings.Builder
	meanings map[string]string // by type and field
	told     map[reflect.Type]bool
}

// meanings are the comments of the fields of all structs of a file.
func meanings(file *ast.File) map[string]string {
	all := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		declared, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		structure, ok := declared.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, field := range structure.Fields.List {
			text := field.Doc.Text()
			if text == "" {
				text = field.Comment.Text()
			}
			for _, name := range field.Names {
				all[declared.Name.Name+"."+name.Name] = strings.Join(strings.Fields(text), " ")
			}
		}
		return true
	})
	return all
}

func (k *keys) structure(path string, v reflect.Value) error {
	k.told[v.Type()] = true
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		meaning := k.meanings[v.Type().Name()+"."+field.Name]
		if meaning == "" {
			return fmt.Errorf("%s%s has no comment that says what it means", path, name)
		}
		otherwise, err := written(v.Field(i))
		if err != nil {
			return err
		}
		fmt.Fprintf(k, "| `%s%s` | %s | %s | %s |\n", path, name, kind(field.Type), otherwise, strings.ReplaceAll(meaning, "|", `\|`))
		inner := v.Field(i)
		if inner.Kind() == reflect.Pointer && inner.IsNil() {
			inner = reflect.New(field.Type.Elem())
		}
		if inner = reflect.Indirect(inner); inner.Kind() == reflect.Struct && !reads(inner.Type()) && !k.told[inner.Type()] {
			if err := k.structure(path+name+".", inner); err != nil {
				return err
			}
		}
	}
	return nil
}

// reads tells whether a type has its own way to be read.
func reads(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())
}

// kind is the type of a key, for people.
func kind(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[jsonfile.Duration]():
		return "time span"
	case t == reflect.TypeFor[jsonfile.Size]():
		return "size"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return kind(t.Elem())
	case reflect.Slice:
		return "list of " + kind(t.Elem()) + "s"
	case reflect.Map:
		return "object of " + kind(t.Elem()) + "s"
	case reflect.Struct:
		return "object"
	case reflect.Int:
		return "number"
	case reflect.Bool:
		return "`true` or `false`"
	default:
		return t.Kind().String()
	}
}

// written is a default as it would be written; empty where there is none.
func written(v reflect.Value) (string, error) {
	if v = reflect.Indirect(v); !v.IsValid() || v.Kind() == reflect.Struct {
		return "", nil
	}
	if v.IsZero() && (v.Kind() == reflect.String || v.Kind() == reflect.Slice || v.Kind() == reflect.Map) {
		return "", nil
	}
	if size, ok := v.Interface().(jsonfile.Size); ok {
		return "`" + sizeText(size) + "`", nil
	}
	text, err := json.Marshal(v.Interface())
	return "`" + string(text) + "`", err
}

// sizeText is a size with the largest unit of which it is a whole number.
func sizeText(size jsonfile.Size) string {
	unit, units := "", []string{"KiB", "MiB", "GiB"}
	for size != 0 && size%1024 == 0 && len(units) > 0 {
		size, unit, units = size/1024, units[0], units[1:]
	}
	if unit == "" {
		return fmt.Sprint(int64(size))
	}
	return fmt.Sprintf("%q", fmt.Sprint(int64(size))+unit)
}
