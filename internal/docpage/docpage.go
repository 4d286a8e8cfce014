// Package docpage keeps those parts of the pages in docs that tell what the
// sources say as the sources are. It holds no state. Only tests import it.
package docpage

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Keep compares the part of a page with what it should be, or, if update is set,
// writes it. A part lies between the lines
//
//	<!-- part: written by `go test . -run TestIt -update` -->
//	<!-- end of part -->
//
// of which the first may say anything behind the colon.
func Keep(t *testing.T, page, part, want string, update bool) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, is, after, err := cut(text, part)
	if err != nil {
		t.Fatalf("%s: %v", page, err)
	}
	want = "\n" + want + "\n"
	if update {
		if err := os.WriteFile(page, bytes.Join([][]byte{before, []byte(want), after}, nil), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(string(is), want); diff != "" {
		t.Errorf("%s is not what its sources say of the %s (-there +want); run the command that it names there:\n%s", page, part, diff)
	}
}

// cut finds a part of a page.
func cut(text []byte, part string) (before, is, after []byte, err error) {
	begin, end := "<!-- "+part+": ", "<!-- end of "+part+" -->\n"
	from := bytes.Index(text, []byte(begin))
	if from < 0 {
		return nil, nil, nil, fmt.Errorf("there is no %q", begin)
	}
	line := bytes.IndexByte(text[from:], '\n') + 1
	length := bytes.Index(text[from+line:], []byte(end))
	if length < 0 {
		return nil, nil, nil, fmt.Errorf("behind %q there is no %q", begin, end)
	}
	from += line
	return text[:from], text[from : from+length], text[from+length:], nil
}

// refused finds in the text of a mistake what would be allowed.
var refused = regexp.MustCompile(`allowed are ([\w, ]+)`)

// Allows makes sure that the row of a key in a page names, in backquotes, all that
// a mistake in that key says is allowed.
func Allows(t *testing.T, page, key string, mistake error) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	said := refused.FindStringSubmatch(fmt.Sprint(mistake))
	if said == nil {
		t.Fatalf("%s: what is allowed is not said, or not in a way that is understood here: %v", key, mistake)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `"+key+"` |") {
			for _, value := range strings.Split(said[1], ", ") {
				if !strings.Contains(line, "`"+value+"`") {
					t.Errorf("%s does not say that %s may be %s", page, key, value)
				}
			}
			return
		}
	}
	t.Errorf("%s has no row for %s", page, key)
}
