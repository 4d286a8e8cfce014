package module

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/allexgo/machine-agent/agent/process/launch"
	"github.com/allexgo/machine-agent/internal/docpage"
	"github.com/allexgo/machine-agent/internal/jsonfile"
)

const document = "../../docs/configuration.md"

var update = flag.Bool("update", false, "write the keys of modules into "+document)

// docs/configuration.md has every key with its type, its default and its meaning.
func TestDocument(t *testing.T) {
	f := defaults()
	f.Health = &healthFile{Live: checkDefaults(t)}
	table, err := docpage.Keys("file.go", f)
	if err != nil {
		t.Fatal(err)
	}
	docpage.Keep(t, document, "modules", table, *update)
}

// checkDefaults are what a check is that says only what it has to.
func checkDefaults(t *testing.T) *checkFile {
	t.Helper()
	m, _ := parse("/m/modules/m.json", []byte(`{"health": {"live": {"kind": "tcp"}}}`))
	live := m.Health.Live
	if live == nil {
		t.Fatal("a module with a check has none")
	}
	interval, timeout := jsonfile.Duration(live.Interval), jsonfile.Duration(live.Timeout)
	return &checkFile{Interval: &interval, Timeout: &timeout, Failures: &live.Failures, Successes: &live.Successes}
}

// What it says of the keys that take one of a few values is what they take.
func TestDocumentSaysWhatIsAllowed(t *testing.T) {
	for key, text := range map[string]string{
		"ready.kind":       `"ready": {"kind": "?"}`,
		"health.live.kind": `"health": {"live": {"kind": "?"}}`,
		"portmode":         `"portmode": "?"`,
		"ports":            `"ports": ["?"]`,
	} {
		_, doc := parse("/m/modules/m.json", fmt.Appendf(nil, `{"modulename": "m", "command": ["/bin/true"], %s}`, text))
		docpage.Allows(t, document, key, doc.Err())
	}
}

// What has no field of its own is told there as well.
func TestDocumentNamesLimitsAndSubstitutions(t *testing.T) {
	page, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	names := append([]string{"memory", "cpu", "pids", "nice", "oomscore", "umask"}, launch.Resources()...)
	for _, name := range substitutions() {
		names = append(names, "${"+name+"}")
	}
	for _, name := range names {
		if !strings.Contains(string(page), fmt.Sprintf("`%s`", name)) {
			t.Errorf("%s does not name `%s`", document, name)
		}
	}
}
