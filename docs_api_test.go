package house_test

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/allexgo/machine-agent/internal/docpage"
)

// docs/api.md tells of every call, message and enum what its comment in the
// .proto files does.
func TestAPIPage(t *testing.T) {
	page := apiPage{t: t, rights: rights(t), told: map[protoreflect.FullName]bool{}}
	files := protos(t)
	for _, file := range files {
		for i := range file.Services().Len() {
			page.service(file.Services().Get(i))
		}
	}
	page.WriteString("## Messages\n\n")
	for _, file := range files {
		for i := range file.Messages().Len() {
			if m := file.Messages().Get(i); !page.told[m.FullName()] {
				page.heading("###", m)
				page.fields(m)
			}
		}
	}
	page.WriteString("## Enums\n\n")
	for _, file := range files {
		for i := range file.Enums().Len() {
			page.enum(file.Enums().Get(i))
		}
	}
	docpage.Keep(t, "docs/api.md", "api", strings.TrimSuffix(page.String(), "\n"), *update)
}

// protos are the files of the API with their comments, in the order of their names.
func protos(t *testing.T) []protoreflect.FileDescriptor {
	t.Helper()
	names, err := filepath.Glob("proto/machineagent/v1/*.proto")
	if err != nil || len(names) == 0 {
		t.Fatalf("no .proto files: %v", err)
	}
	for i, name := range names {
		names[i] = strings.TrimPrefix(filepath.ToSlash(name), "proto/")
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{"proto"}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		t.Fatal(err)
	}
	files := make([]protoreflect.FileDescriptor, len(compiled))
	for i, file := range compiled {
		files[i] = file
	}
	return files
}

// comment is what stands above something in its file.
func comment(t *testing.T, d protoreflect.Descriptor) string {
	t.Helper()
	text := strings.TrimSpace(d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments)
	if text == "" {
		t.Errorf("%s has no comment", d.FullName())
	}
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		paragraphs[i] = strings.Join(strings.Fields(p), " ")
	}
	return strings.NewReplacer("<", `\<`, "|", `\|`).Replace(strings.Join(paragraphs, "\n\n"))
}

// rights are what server/rights.go says of each call: how far anyone, a child and
// an operator may go.
func rights(t *testing.T) map[string]map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "server/rights.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		entry, ok := n.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		method, ok := entry.Key.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		reaches, ok := entry.Value.(*ast.CompositeLit)
		if !ok {
			return true
		}
		right := map[string]string{}
		for _, e := range reaches.Elts {
			if e, ok := e.(*ast.KeyValueExpr); ok {
				right[fmt.Sprint(e.Key)] = fmt.Sprint(e.Value)
			}
		}
		all[strings.TrimSuffix(method.Sel.Name, "_FullMethodName")] = right
		return false
	})
	return all
}

type apiPage struct {
	strings.Builder
	t      *testing.T
	rights map[string]map[string]string
	told   map[protoreflect.FullName]bool // messages that stand with their call
}

func (p *apiPage) heading(level string, d protoreflect.Descriptor) {
	fmt.Fprintf(p, "%s %s\n\n%s\n\n", level, d.Name(), comment(p.t, d))
}

func (p *apiPage) service(s protoreflect.ServiceDescriptor) {
	p.heading("##", s)
	for i := range s.Methods().Len() {
		m := s.Methods().Get(i)
		p.heading("###", m)
		p.allowed(s, m)
		p.message("Request", m.Input())
		if m.IsStreamingServer() {
			p.message("Answers, as a stream", m.Output())
		} else {
			p.message("Answer", m.Output())
		}
	}
}

// message tells of a request or an answer, whose comment begins with its name.
func (p *apiPage) message(role string, m protoreflect.MessageDescriptor) {
	p.told[m.FullName()] = true
	name := string(m.Name())
	fmt.Fprintf(p, "%s: %s\n\n", role, strings.Replace(comment(p.t, m), name, "`"+name+"`", 1))
	p.fields(m)
}

// allowed tells who may make a call. ChildService is not the agent's.
func (p *apiPage) allowed(s protoreflect.ServiceDescriptor, m protoreflect.MethodDescriptor) {
	if s.Name() == "ChildService" {
		return
	}
	words := map[string]string{"nothing": "no", "itself": "only of itself", "public": "without property hashes", "full": "yes"}
	right := p.rights[fmt.Sprintf("%s_%s", s.Name(), m.Name())]
	var said []string
	for _, who := range []string{"anyone", "child", "operator"} {
		word := words[right[who]]
		if word == "" {
			p.t.Errorf("server/rights.go does not say, in a way that is understood here, whether %s may call %s", who, m.FullName())
		}
		said = append(said, who+": "+word)
	}
	fmt.Fprintf(p, "Who may: %s.\n\n", strings.Join(said, ", "))
}

func (p *apiPage) fields(m protoreflect.MessageDescriptor) {
	if m.Fields().Len() == 0 {
		return
	}
	p.WriteString("| field | type | meaning |\n|---|---|---|\n")
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		meaning := strings.ReplaceAll(comment(p.t, f), "\n\n", " ")
		if one := f.ContainingOneof(); one != nil && !one.IsSynthetic() {
			meaning = fmt.Sprintf("One of `%s`: %s", one.Name(), meaning)
		}
		fmt.Fprintf(p, "| `%s` | %s | %s |\n", f.Name(), fieldType(f), meaning)
	}
	p.WriteString("\n")
}

func fieldType(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return fmt.Sprintf("map of %s to %s", oneType(f.MapKey()), oneType(f.MapValue()))
	case f.IsList():
		return "repeated " + oneType(f)
	case f.HasOptionalKeyword():
		return "optional " + oneType(f)
	}
	return oneType(f)
}

func oneType(f protoreflect.FieldDescriptor) string {
	var named protoreflect.Descriptor
	switch {
	case f.Message() != nil:
		named = f.Message()
	case f.Enum() != nil:
		named = f.Enum()
	default:
		return f.Kind().String()
	}
	if named.ParentFile().Package() != f.ParentFile().Package() {
		return "`" + string(named.FullName()) + "`"
	}
	return fmt.Sprintf("[%s](#%s)", named.Name(), strings.ToLower(string(named.Name())))
}

func (p *apiPage) enum(e protoreflect.EnumDescriptor) {
	p.heading("###", e)
	p.WriteString("| value | number | meaning |\n|---|---|---|\n")
	for i := range e.Values().Len() {
		v := e.Values().Get(i)
		fmt.Fprintf(p, "| `%s` | %d | %s |\n", v.Name(), v.Number(), comment(p.t, v))
	}
	p.WriteString("\n")
}
