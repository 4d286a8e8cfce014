package house_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const boundsPage = "docs/bounds.md"

// boundRow is a row of the page: what, how much, what happens then, and the file
// and the name that say so.
var boundRow = regexp.MustCompile("(?m)^\\| [^|]+ \\| ([^|]+) \\| [^|]+ \\| `([\\w/]+\\.go)` `([\\w.]+)` \\|$")

// bounds are the rows of the page, by file and name: how much.
func bounds(t *testing.T) map[[2]string]string {
	t.Helper()
	text, err := os.ReadFile(boundsPage)
	if err != nil {
		t.Fatal(err)
	}
	all := map[[2]string]string{}
	for _, row := range boundRow.FindAllStringSubmatch(string(text), -1) {
		where := [2]string{row[2], row[3]}
		if all[where] != "" {
			t.Errorf("%s has %s of %s twice", boundsPage, row[3], row[2])
		}
		all[where] = row[1]
	}
	if rows := strings.Count(string(text), ".go` `"); len(all) != rows {
		t.Errorf("%s names %d places, and %d of them are understood: | what | how much | what happens | `file` `name` |", boundsPage, rows, len(all))
	}
	return all
}

// Every bound that docs/bounds.md tells of is there, and as much.
func TestBoundsAreThere(t *testing.T) {
	for where, said := range bounds(t) {
		name := where[1]
		is, err := boundOf(parsed(t, where[0]), name)
		if err != nil {
			t.Errorf("%s: %s: %v", where[0], name, err)
		} else if !slices.Contains(is, said) {
			t.Errorf("%s says that %s of %s is %s, and it is %s", boundsPage, name, where[0], said, strings.Join(is, " or "))
		}
	}
}

// boundName is how constants are called that bound something.
var boundName = regexp.MustCompile(`^(max|most)[A-Z]|^[a-z]\w*(Limit|AtOnce|Kept)$`)

// notBounds are called so and bound nothing that somebody could want to know.
var notBounds = map[[2]string]string{
	{"agent/config/check.go", "maxPort"}:         "a port has 16 bits",
	{"agent/port/port.go", "maxPort"}:            "a port has 16 bits",
	{"lanmanager/boot.go", "mostPort"}:           "a port has 16 bits",
	{"server/listen_linux.go", "pathLimit"}:      "the system's",
	{"server/listen_bsd.go", "pathLimit"}:        "the system's",
	{"agent/port/port.go", "maxHolders"}:         "names in the text of an error",
	{"agent/config/secret.go", "mostToken"}:      "a key of the configuration has it, and its page tells",
	{"agent/module/check.go", "mostGenerations"}: "a key of the configuration has it, and its page tells",
}

// No bound is missing there: every constant that is called like one, and every
// channel that has room for more than what one or two are to say.
func TestEveryBoundIsTold(t *testing.T) {
	told, there := bounds(t), map[[2]string]bool{}
	for _, s := range sources(t) {
		if s.test || s.generated || !slices.Contains([]string{"agent", "server", "lan", "lanmanager", "cmd"}, s.room()) {
			continue
		}
		file := parsed(t, s.name)
		for _, name := range boundNames(file) {
			where := [2]string{s.name, name}
			there[where] = true
			if told[where] == "" && notBounds[where] == "" {
				t.Errorf("%s does not tell of %s in %s", boundsPage, name, s.name)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if size := roomOf(n); size != nil {
				if !slices.Contains(boundsOf(told, s.pkg()), expression(size)) {
					t.Errorf("%s makes a channel with room, and %s does not tell how much: give it a constant", s.name, boundsPage)
				}
			}
			return true
		})
	}
	for where := range notBounds {
		if !there[where] {
			t.Errorf("%s is not in %s any more", where[1], where[0])
		}
	}
}

// boundsOf are the names that the page tells of a package.
func boundsOf(told map[[2]string]string, dir string) (names []string) {
	for where := range told {
		if path.Dir(where[0]) == dir {
			names = append(names, where[1])
		}
	}
	return names
}

// boundNames are the constants of a file that are called like bounds.
func boundNames(file *ast.File) (names []string) {
	for _, d := range file.Decls {
		block, ok := d.(*ast.GenDecl)
		if !ok || block.Tok != token.CONST {
			continue
		}
		for _, spec := range block.Specs {
			for _, name := range spec.(*ast.ValueSpec).Names {
				if boundName.MatchString(name.Name) {
					names = append(names, name.Name)
				}
			}
		}
	}
	return names
}

// roomOf is the size of a channel that n makes, if that is more than 2.
func roomOf(n ast.Node) ast.Expr {
	call, ok := n.(*ast.CallExpr)
	if !ok || expression(call.Fun) != "make" || len(call.Args) < 2 {
		return nil
	}
	if _, ok := call.Args[0].(*ast.ChanType); !ok {
		return nil
	}
	size := call.Args[1]
	if f, ok := size.(*ast.CallExpr); ok {
		return f.Fun
	}
	if l, ok := size.(*ast.BasicLit); ok && (l.Value == "1" || l.Value == "2") {
		return nil
	}
	return size
}

// boundOf is how much a name of a file says, in the ways in which it may be
// written: the name is that of a constant, of a function that returns it, of a
// field that is set to it, or of one that has it for a default by cmp.Or.
func boundOf(file *ast.File, name string) ([]string, error) {
	var found []ast.Expr
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			for i, id := range n.Names {
				if id.Name == name && i < len(n.Values) {
					found = append(found, n.Values[i])
				}
			}
		case *ast.FuncDecl:
			if n.Name.Name == name {
				found = append(found, n.Body.List[0].(*ast.ReturnStmt).Results[0])
			}
		case *ast.KeyValueExpr:
			if expression(n.Key) == name {
				found = append(found, n.Value)
			}
		case *ast.AssignStmt:
			if or, ok := n.Rhs[0].(*ast.CallExpr); ok && last(n.Lhs[0]) == name && expression(or.Fun) == "cmp.Or" {
				found = append(found, or.Args[1])
			}
		}
		return true
	})
	if len(found) != 1 {
		return nil, fmt.Errorf("it is there %d times", len(found))
	}
	if each, ok := perCore(found[0]); ok {
		return []string{each + " a core"}, nil
	}
	value, span, err := evaluate(found[0])
	if err != nil {
		return nil, err
	}
	n, _ := constant.Int64Val(value)
	if span {
		return []string{spanText(n)}, nil
	}
	return []string{thousands(n), bytesText(n)}, nil
}

// perCore is the factor of a number of processors.
func perCore(e ast.Expr) (string, bool) {
	product, ok := e.(*ast.BinaryExpr)
	if !ok || product.Op != token.MUL {
		return "", false
	}
	cores, ok := product.Y.(*ast.CallExpr)
	factor, isNumber := product.X.(*ast.BasicLit)
	if !ok || !isNumber || expression(cores.Fun) != "runtime.NumCPU" {
		return "", false
	}
	return factor.Value, true
}

var units = map[string]time.Duration{"time.Millisecond": time.Millisecond, "time.Second": time.Second, "time.Minute": time.Minute, "time.Hour": time.Hour}

// evaluate is the value of numbers and units of time.
func evaluate(e ast.Expr) (value constant.Value, span bool, err error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0), false, nil
	case *ast.SelectorExpr:
		if unit := units[expression(e)]; unit != 0 {
			return constant.MakeInt64(int64(unit)), true, nil
		}
	case *ast.BinaryExpr:
		x, xSpan, xErr := evaluate(e.X)
		y, ySpan, yErr := evaluate(e.Y)
		if err := errors.Join(xErr, yErr); err != nil {
			return nil, false, err
		}
		if e.Op == token.SHL {
			shift, _ := constant.Uint64Val(y)
			return constant.Shift(x, e.Op, uint(shift)), false, nil
		}
		return constant.BinaryOp(x, e.Op, y), xSpan || ySpan, nil
	}
	return nil, false, errors.New("it is no number that is understood here")
}

// thousands is a number with commas.
func thousands(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func bytesText(n int64) string {
	unit, units := "bytes", []string{"KiB", "MiB", "GiB"}
	for n != 0 && n%1024 == 0 && len(units) > 0 {
		n, unit, units = n/1024, units[0], units[1:]
	}
	return thousands(n) + " " + unit
}

func spanText(n int64) string {
	if n == int64(24*time.Hour) {
		return "1 day"
	}
	for _, unit := range []struct {
		long time.Duration
		name string
	}{{24 * time.Hour, "days"}, {time.Minute, "min"}, {time.Second, "s"}} {
		if n%int64(unit.long) == 0 {
			return fmt.Sprint(n/int64(unit.long), " ", unit.name)
		}
	}
	return fmt.Sprint(n/int64(time.Millisecond), " ms")
}

// The reading itself is tried, since a page in order does not show that it bites.
func TestTextsOfBounds(t *testing.T) {
	for got, want := range map[string]string{
		thousands(7): "7", thousands(4096): "4,096", thousands(123456): "123,456", thousands(1234567): "1,234,567",
		bytesText(1 << 20): "1 MiB", bytesText(600): "600 bytes", bytesText(32 << 20): "32 MiB",
		spanText(int64(30 * time.Second)): "30 s", spanText(int64(10 * time.Minute)): "10 min",
		spanText(int64(24 * time.Hour)): "1 day", spanText(int64(7 * 24 * time.Hour)): "7 days", spanText(int64(500 * time.Millisecond)): "500 ms",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
