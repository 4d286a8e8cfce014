package house_test

import (
	"os"
	"path/filepath"
	"regexp"
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
