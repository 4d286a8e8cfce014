package house_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// quoted matches a block of code that names the file it is from.
var quoted = regexp.MustCompile("(?ms)^```[a-z]+ (\\S+)\n(.*?)^```$")

// What the docs quote of a file stands there, word for word.
func TestDocsQuoteWhatIsThere(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	quotes := map[string]int{}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, quote := range quoted.FindAllStringSubmatch(string(text), -1) {
			file, code := quote[1], quote[2]
			source, err := os.ReadFile(file)
			if err != nil {
				t.Errorf("%s quotes %s: %v", page, file, err)
			} else if !strings.Contains(string(source), code) {
				t.Errorf("%s says that this is in %s, and it is not:\n%s", page, file, code)
			}
			quotes[file]++
		}
	}
	for _, file := range []string{"examples/greeter/main.go", "examples/node/greeter.js", "examples/python/greeter.py"} {
		if quotes[file] == 0 {
			t.Errorf("no page of docs quotes %s: is the way in which it names its file still understood?", file)
		}
	}
}

// link matches one in a page: the file, which may be empty, and the heading.
var link = regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)\s]+))?\)`)

// Links between pages lead to what is there.
func TestDocsLinksLeadSomewhere(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, page := range append(pages, "README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range link.FindAllStringSubmatch(string(text), -1) {
			links++
			to := page
			if l[1] != "" {
				to = filepath.Join(filepath.Dir(page), filepath.FromSlash(l[1]))
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s: %v", page, l[1], err)
			} else if l[2] != "" && !slices.Contains(headings(t, to), l[2]) {
				t.Errorf("%s links to %s of %s, which has no such heading", page, l[2], to)
			}
		}
	}
	if links < 20 {
		t.Errorf("%d links in all pages: is the way in which they are written still understood?", links)
	}
}

var (
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	unspelt = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// headings are those of a page as links name them.
func headings(t *testing.T, page string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range heading.FindAllStringSubmatch(string(text), -1) {
		all = append(all, strings.ReplaceAll(unspelt.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
	}
	return all
}
