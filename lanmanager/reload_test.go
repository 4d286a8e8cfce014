package lanmanager

import (
	"strings"
	"testing"

	"github.com/allexgo/machine-agent/lanmanager/page"
)

// People see what changed on the disk, and what is wrong with it.
func TestChangesOnDiskAreShown(t *testing.T) {
	lan := start(t, Config{}, needs("stays", "goes", "changes"))
	a := lan.agent("one", "127.0.0.1")
	writeFile(t, lan.directory, "needs", `[{"instancename":"stays","modulename":"m"},
		{"instancename":"changes","modulename":"new"},{"instancename":"comes","modulename":"m"}]`)
	a.soon(a.needs, "stays", "changes", "comes")

	snapshot := func() *page.Snapshot {
		t.Helper()
		s, err := lan.m.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	var events []string
	for _, e := range snapshot().Events {
		events = append(events, e.Kind+" "+e.Subject+": "+e.Text)
	}
	for _, want := range []string{"need open comes: its files have it now", "need open changes: its files changed it", "need closed goes: its files have it no more"} {
		if !strings.Contains(strings.Join(events, "\n"), want) {
			t.Errorf("no event %q in %q", want, events)
		}
	}

	writeFile(t, lan.directory, "needs", "[\n  {,\n")
	a.until("the mistake to be seen", func() bool {
		s := snapshot()
		return len(s.Problems) == 1 && strings.Contains(s.Problems[0].Text, "needs:2:")
	})
	if got := len(snapshot().Needs); got != 3 {
		t.Errorf("%d needs while the file is broken, want those of before", got)
	}
	writeFile(t, lan.directory, "needs", `[{"instancename":"stays","modulename":"m"}]`)
	a.until("it to be mended", func() bool { s := snapshot(); return len(s.Problems) == 0 && len(s.Needs) == 1 })
	a.soon(a.needs, "stays")
}
