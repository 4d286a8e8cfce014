// Package house_test holds the house rules: who may import whom, what every
// package and file must have. It is the picture of the house that can not go
// stale (design section 3). It reads the sources as they lie in this directory,
// for all operating systems at once, and needs neither git nor the go command.
package house_test

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	module   = "github.com/allexgo/machine-agent"
	maxLines = 600 // of a file that is not generated
)

// anyRoom in arrows stands for every room but cmd.
const anyRoom = "*"

// arrows says what the code of a room, tests apart, may import of this module.
// A room that is not here must be added together with its arrows.
var arrows = map[string][]string{
	"proto":      {"proto"},
	"internal":   {"internal"},
	"lan":        {"lan"},
	"agent":      {"agent", "lan", "internal"},
	"lanmanager": {"lanmanager", "lan", "internal"},
	"server":     {"server", "agent", "proto", "lan"},
	"client":     {"client", "proto"},
	"examples":   {"client", "proto"},
	"cmd":        {anyRoom},
	"e2e":        {anyRoom},
	"bench":      {anyRoom},
}

// plainRooms know nothing of gRPC and of generated code, not even of those that
// come from elsewhere.
var plainRooms = []string{"internal", "lan", "agent", "lanmanager"}

// foreign are the modules that plain rooms must not import.
var foreign = []string{"google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto"}

// source is a Go file of this module.
type source struct {
	name      string // with slashes, from the root
	test      bool
	generated bool
	doc       bool // has the package comment
	imports   []string
	lines     int
}

func (s source) pkg() string  { return path.Dir(s.name) }
func (s source) room() string { return room(s.pkg()) }

// room is the first element of a path inside of the module.
func room(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

func TestArrows(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		may, known := arrows[s.room()]
		if !known {
			t.Errorf("%s: the room %q has no arrows; add it in house_test.go, or move the file", s.name, s.room())
		}
		for _, imported := range s.imports {
			if problem := forbidden(s.room(), may, imported); problem != "" {
				t.Errorf("%s imports %s: %s", s.name, imported, problem)
			}
		}
	}
}

// forbidden is why a file of a room may not import something; empty if it may.
func forbidden(from string, may []string, imported string) string {
	inside, ours := strings.CutPrefix(imported, module+"/")
	switch to := room(inside); {
	case !ours:
		isForeign := slices.ContainsFunc(foreign, func(m string) bool { return within(imported, m) })
		if isForeign && slices.Contains(plainRooms, from) {
			return from + " knows nothing of gRPC and protobuf"
		}
	case to == "cmd":
		return "nothing imports a command"
	case !slices.Contains(may, to) && !slices.Contains(may, anyRoom):
		return fmt.Sprintf("%s may import only %s", from, strings.Join(may, ", "))
	}
	return ""
}

func within(pkg, tree string) bool { return pkg == tree || strings.HasPrefix(pkg, tree+"/") }

// The rule itself is tried, since a house in order does not show that it bites.
func TestForbidden(t *testing.T) {
	for _, arrow := range []struct {
		from, to string
		ok       bool
	}{
		{"agent", module + "/lan/table", true},
		{"agent", module + "/agent/port", true},
		{"agent", module + "/internal/jsonfile", true},
		{"agent", module + "/server", false},
		{"agent", module + "/proto/machineagent/v1", false},
		{"agent", "google.golang.org/grpc", false},
		{"agent", "google.golang.org/grpc/codes", false},
		{"agent", "google.golang.org/protobuf/proto", false},
		{"server", "google.golang.org/grpc/codes", true},
		{"server", module + "/lanmanager", false},
		{"lan", module + "/agent", false},
		{"lan", module + "/internal/jsonfile", false},
		{"lanmanager", module + "/agent/config", false},
		{"client", module + "/agent", false},
		{"cmd", module + "/lanmanager", true},
		{"cmd", module + "/cmd/agentd", false},
		{"e2e", module + "/cmd/agentd", false},
	} {
		if problem := forbidden(arrow.from, arrows[arrow.from], arrow.to); (problem == "") != arrow.ok {
			t.Errorf("%s -> %s: allowed %v, want %v (%s)", arrow.from, arrow.to, problem == "", arrow.ok, problem)
		}
	}
}

func TestPackageComments(t *testing.T) {
	type pkg struct{ code, doc, testDoc bool }
	packages := map[string]pkg{}
	for _, s := range sources(t) {
		p := packages[s.pkg()]
		p.code = p.code || !s.test
		p.doc = p.doc || s.doc && !s.test
		p.testDoc = p.testDoc || s.doc
		packages[s.pkg()] = p
	}
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		if p := packages[dir]; !p.doc && (p.code || !p.testDoc) {
			t.Errorf("package %s has no package comment: say what it is, who owns what in it and who may import it", dir)
		}
	}
}

func TestFileSize(t *testing.T) {
	for _, s := range sources(t) {
		if s.lines > maxLines && !s.generated {
			t.Errorf("%s has %d lines, more than %d: look for the two things that it holds", s.name, s.lines, maxLines)
		}
	}
}

// buildMachine matches paths that only mean something where the code was written.
var buildMachine = regexp.MustCompile(`(?:/(?:home|Users|work|builds)/[\w.-]+|/root|/go/pkg/mod)/[\w.-]`)

func TestNoPathOfABuildMachine(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			found := buildMachine.Find(line)
			if found == nil && strings.Count(here, string(filepath.Separator)) > 1 && bytes.Contains(line, []byte(here)) {
				found = []byte(here)
			}
			if found != nil {
				t.Errorf("%s:%d: holds %q, a path of somebody's machine", name, i+1, found)
			}
		}
	}
}

// sums is the record of what `make generate` read and wrote, in the format of sha256sum.
const sums = "proto/generated.sha256"

var update = flag.Bool("update", false, "write "+sums+" and the tables of docs anew (make generate does)")

func TestGeneratedCode(t *testing.T) {
	var want bytes.Buffer
	for _, name := range files(t) {
		if !within(name, "proto") || !strings.HasSuffix(name, ".proto") && !strings.HasSuffix(name, ".pb.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&want, "%x  %s\n", sha256.Sum256(text), name)
	}
	if *update {
		if err := os.WriteFile(sums, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(sums)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), want.String()); diff != "" {
		t.Errorf("proto/ is not what make generate left (-then +now); run it again:\n%s", diff)
	}
}

// sources reads all Go files.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	for _, name := range files(t) {
		if strings.HasSuffix(name, ".go") {
			all = append(all, read(t, name))
		}
	}
	return all
}

func read(t *testing.T, name string) source {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	s := source{
		name:      name,
		test:      strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(file),
		doc:       file.Doc != nil,
		lines:     bytes.Count(text, []byte("\n")),
	}
	for _, i := range file.Imports {
		imported, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		s.imports = append(s.imports, imported)
	}
	return s
}

// files is every file of this module, in order, without what git does not keep.
func files(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && unkept(name):
			return fs.SkipDir
		case d.Type().IsRegular():
			all = append(all, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// unkept tells whether a directory is made by git, make, npm, an agent or a failed test.
func unkept(dir string) bool {
	base := path.Base(filepath.ToSlash(dir))
	return dir == "bin" || base == "rapid" || base == "node_modules" || len(base) > 1 && base[0] == '.' && base != ".ci"
}
