package house_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/allexgo/machine-agent/internal/docpage"
)

// docs/errors.md tells of every reason what error.proto says of it, with which
// codes the agent gives it, and which cure the client knows.
func TestErrorsPage(t *testing.T) {
	codes, cures := codesOfReasons(t), cures(t)
	var table strings.Builder
	table.WriteString("| reason | code | metadata | what it means | what to do |\n|---|---|---|---|---|\n")
	reasons := reasons(t)
	for i := range reasons.Len() {
		v := reasons.Get(i)
		name := strings.TrimPrefix(string(v.Name()), "ERROR_REASON_")
		if v.Number() == 0 {
			continue
		}
		meaning, metadata, _ := strings.Cut(comment(t, v), " Metadata: ")
		if len(codes[name]) == 0 {
			t.Errorf("nothing in the agent fails with %s: is the way in which its errors are written still understood?", name)
		}
		if cures[name] == "" {
			t.Errorf("client/errors.go knows no cure for %s", name)
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s | %s |\n", name, strings.Join(codes[name], ", "),
			strings.TrimSuffix(metadata, "."), meaning, cures[name])
	}
	docpage.Keep(t, "docs/errors.md", "reasons", table.String(), *update)
}

// reasons are the values of ErrorReason.
func reasons(t *testing.T) protoreflect.EnumValueDescriptors {
	t.Helper()
	for _, file := range protos(t) {
		if e := file.Enums().ByName("ErrorReason"); e != nil {
			return e.Values()
		}
	}
	t.Fatal("there is no ErrorReason")
	return nil
}

// And of every kind of error its code, and what it is in Go.
func TestErrorCodesOfPage(t *testing.T) {
	inGo := map[string]string{}
	for _, clause := range clauses(t, "client/errors.go", "kindOf") {
		for _, code := range clause.List {
			inGo[last(code)] = expression(clause.Body[0].(*ast.ReturnStmt).Results[0])
		}
	}
	kinds := kinds(t)
	var table strings.Builder
	table.WriteString("| code | in Go | what it means |\n|---|---|---|\n")
	for _, c := range constants(t, "agent/api.go", "Kind") {
		code := kinds[c.name]
		if code == "" || inGo[code] == "" {
			t.Errorf("agent.%s has no code, or that no error in the client", c.name)
		}
		fmt.Fprintf(&table, "| `%s` | `client.%s` | %s |\n", upper(code), inGo[code], c.comment)
	}
	docpage.Keep(t, "docs/errors.md", "codes", table.String(), *update)
}

// codesOfReasons are the codes with which each reason is given, by the errors that
// are written down in the sources.
func codesOfReasons(t *testing.T) map[string][]string {
	t.Helper()
	kinds, values := kinds(t), map[string]string{}
	for _, c := range constants(t, "agent/api.go", "Reason") {
		values[c.name] = c.value
	}
	found := map[string]map[string]bool{}
	for _, s := range sources(t) {
		if s.test || !slices.Contains([]string{"agent", "server", "cmd"}, s.room()) {
			continue
		}
		ast.Inspect(parsed(t, s.name), func(n ast.Node) bool {
			literal, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			given := map[string]string{}
			for _, e := range literal.Elts {
				if e, ok := e.(*ast.KeyValueExpr); ok {
					given[last(e.Key)] = last(e.Value)
				}
			}
			if reason, code := values[given["Reason"]], kinds[given["Kind"]]; reason != "" && code != "" {
				if found[reason] == nil {
					found[reason] = map[string]bool{}
				}
				found[reason]["`"+upper(code)+"`"] = true
			}
			return true
		})
	}
	all := map[string][]string{}
	for reason, codes := range found {
		all[reason] = slices.Sorted(maps.Keys(codes))
	}
	return all
}

// kinds are the codes of the agent's kinds of errors.
func kinds(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	ast.Inspect(parsed(t, "server/errors.go"), func(n ast.Node) bool {
		if pair, ok := n.(*ast.KeyValueExpr); ok && strings.HasPrefix(expression(pair.Value), "codes.") {
			all[last(pair.Key)] = last(pair.Value)
		}
		return true
	})
	return all
}

// cures are what the client advises on each reason.
func cures(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, clause := range clauses(t, "client/errors.go", "commonCure") {
		returned, ok := clause.Body[0].(*ast.ReturnStmt)
		if !ok {
			continue
		}
		for _, reason := range clause.List {
			if name := literal(reason); name != "" {
				all[name] = literal(returned.Results[0])
			}
		}
	}
	return all
}

// clauses are the cases of the switches of a function.
func clauses(t *testing.T, file, function string) (all []*ast.CaseClause) {
	t.Helper()
	for _, d := range parsed(t, file).Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == function {
			ast.Inspect(f, func(n ast.Node) bool {
				if clause, ok := n.(*ast.CaseClause); ok {
					all = append(all, clause)
				}
				return true
			})
		}
	}
	return all
}

type named struct{ name, value, comment string }

// constants are those of a type, or of the block that begins with one.
func constants(t *testing.T, file, of string) (all []named) {
	t.Helper()
	for _, d := range parsed(t, file).Decls {
		block, ok := d.(*ast.GenDecl)
		if !ok || block.Tok != token.CONST {
			continue
		}
		if first, ok := block.Specs[0].(*ast.ValueSpec); !ok || first.Type == nil || last(first.Type) != of {
			continue
		}
		for _, spec := range block.Specs {
			spec := spec.(*ast.ValueSpec)
			c := named{name: spec.Names[0].Name, comment: strings.TrimSpace(spec.Comment.Text())}
			if len(spec.Values) > 0 {
				c.value = literal(spec.Values[0])
			}
			all = append(all, c)
		}
	}
	return all
}

func parsed(t *testing.T, name string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(name), nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// expression is a name, with that of its package if it has one.
func expression(e ast.Expr) string {
	if s, ok := e.(*ast.SelectorExpr); ok {
		return expression(s.X) + "." + s.Sel.Name
	}
	if i, ok := e.(*ast.Ident); ok {
		return i.Name
	}
	return ""
}

// last is the name without that of its package.
func last(e ast.Expr) string {
	name := expression(e)
	return name[strings.LastIndex(name, ".")+1:]
}

// literal is the text of a string that is written down; empty if e is none.
func literal(e ast.Expr) string {
	text := ""
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		text, _ = strconv.Unquote(l.Value)
	}
	return text
}

var humps = regexp.MustCompile(`([a-z])([A-Z])`)

// upper is a name in the spelling of gRPC's codes.
func upper(name string) string { return strings.ToUpper(humps.ReplaceAllString(name, "${1}_$2")) }
