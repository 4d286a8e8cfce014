package lanmanager

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultFiles(t *testing.T) {
	directory := t.TempDir()
	lan := start(t, Config{Directory: directory}, nil)
	a := lan.agent("one", "127.0.0.1")
	a.item(a.needsQuery, `"r1"`, `"Time"`, `"allex_timeservice"`, `{"ip":"127.0.0.1/32","role":"user"}`)
	for name, want := range map[string]string{
		"needs":         `[{"modulename":"allex_timeservice","instancename":"Time","propertyhash":{}}]`,
		"needs.runtime": `[]`,
		"nat":           `[{"iaddress":"192.168.1.1","iport":12345,"eaddress":"1.2.3.4","eport":80}]`,
	} {
		if got := strings.TrimSpace(readFile(t, directory, name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestNeedsSurviveARestart(t *testing.T) {
	lan := start(t, Config{}, needs("static", "removed"))
	a := lan.agent("one", "127.0.0.1")
	for _, need := range []string{
		`{"instancename":"added","modulename":"m","propertyhash":{"a":1},"extra":"kept"}`,
		`{"instancename":"static","modulename":"other"}`,
		`{"instancename":"gone","modulename":"m"}`,
	} {
		if got := a.value(a.lan, ".", "addNeed", json.RawMessage(need)); got != "true" {
			t.Errorf("addNeed: %s", got)
		}
	}
	session := a.on("removed")
	a.bid(session)
	for _, name := range []string{"gone", "removed", "never there"} {
		if got := a.value(a.lan, ".", "removeNeed", name); got != "true" {
			t.Errorf("removeNeed: %s", got)
		}
	}
	a.soon(a.needs, "static", "added")
	a.soon(a.services) // no phantom
	lan.stop()
	a.gone()
	if text := readFile(t, lan.directory, "needs.runtime"); !json.Valid([]byte(text)) || !strings.Contains(text, `"extra":"kept"`) {
		t.Errorf("needs.runtime: %s", text)
	}
	left, _ := filepath.Glob(filepath.Join(lan.directory, ".allexlanmanager", "*"))
	if len(left) != 3 {
		t.Errorf("files left: %v", left)
	}

	lan = start(t, Config{Directory: lan.directory, Listen: strings.Trim(lan.url, "ws:/")}, nil)
	a = lan.agent("one", "127.0.0.1")
	if diff := cmp.Diff([]string{"static", "added"}, a.names(a.needs)); diff != "" {
		t.Errorf("needs after the restart: %s", diff)
	}
	a.item(a.needsQuery, `"static"`, `"modulename":"other"`) // extended
	a.item(a.needsQuery, `"added"`, `"propertyhash":{"a":1}`)
	// What was removed may come back.
	if got := a.value(a.lan, ".", "addNeed", json.RawMessage(`{"instancename":"removed"}`)); got != "true" {
		t.Errorf("addNeed: %s", got)
	}
	a.item(a.needsQuery, `"c"`, `"removed"`, `"modulename":"m"`) // it extends the one in the file
	a.serveAll(listener(t), "static")
	lan.stop()
	lan = start(t, Config{Directory: lan.directory}, nil)
	a = lan.agent("one", "127.0.0.1")
	a.soon(a.needs, "static", "removed", "added")
	a.soon(a.services) // those are not remembered
}

func TestAddNeedWhere(t *testing.T) {
	lan := start(t, Config{}, needs("open", "served"))
	a := lan.agent("one", "127.0.0.1")
	a.serveAll(listener(t), "served")
	for _, name := range []string{"open", "served"} {
		if got := a.value(a.lan, ".", "addNeed", map[string]any{"instancename": name, "modulename": "new"}); got != "true" {
			t.Errorf("addNeed of %s: %s", name, got)
		}
	}
	if got := a.value(a.lan, ".", "removeNeed", "served"); got != "true" {
		t.Errorf("removeNeed: %s", got)
	}
	a.soon(a.services, "served") // it runs on
	q := a.begin(a.needs, "!", "query", map[string]any{})
	a.item(q, `"open"`, `"modulename":"m"`) // it stays as it was
	a.value(a.lan, ".", "notifyServiceDown", "served")
	a.soon(a.needs, "open") // but the other is not needed again
}

func TestBrokenFiles(t *testing.T) {
	const brokenNeeds = "[\n  {\"instancename\":\"A\",}\n]"
	const brokenRuntime = `[{"instancename":"B"`
	lan := start(t, Config{}, map[string]string{"needs": brokenNeeds, "needs.runtime": brokenRuntime, "nat": "{}"})
	log := lan.log.String()
	for _, want := range []string{"needs:2:23: broken JSON", "needs.runtime:1:", "nat:1:1: found an object, wanted an array"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	a := lan.agent("one", "127.0.0.1")
	u := a.call(a.lan, ".", "addNeed", map[string]string{"instancename": "C"})
	if u.Code != "NEEDS_NOT_SAVED" || !strings.Contains(u.Message, "needs.runtime:1:") || !strings.Contains(u.Message, "repair") {
		t.Errorf("addNeed: %s", u.AppendJSON(nil))
	}
	a.serveAll(listener(t), "C") // for now it is a need like others
	for name, want := range map[string]string{"needs": brokenNeeds, "needs.runtime": brokenRuntime, "nat": "{}"} {
		if got := readFile(t, lan.directory, name); got != want {
			t.Errorf("%s is now %s", name, got)
		}
	}
}

func TestOddEntries(t *testing.T) {
	lan := start(t, Config{}, map[string]string{
		"needs": `[5, {"modulename":"m"}, {"instancename":""}, {"instancename":"A","pid":5,"closed":true,"ipaddress":7,"tcpport":"x","strategies":[1],"timeout":"long"}]`,
		"nat":   `[{"iaddress":"a","iport":1},{"iaddress":"a"},"x"]`})
	a := lan.agent("one", "127.0.0.1")
	if diff := cmp.Diff([]string{"A"}, a.names(a.needs)); diff != "" {
		t.Errorf("needs: %s", diff)
	}
	a.item(a.needsQuery, `"A"`, `"pid":null`, `"closed":null`)
	long := strings.Repeat("n", 256)
	if got := a.value(a.lan, ".", "addNeed", map[string]string{"instancename": long}); got != "NEED_NOT_DEFINED" {
		t.Errorf("a need with a name of 256 bytes: %s", got)
	}
	if got := a.value(a.needs, "!", "subConnect", long); got != "NAME_TOO_LONG" {
		t.Errorf("subConnect with a name of 256 bytes: %s", got)
	}
	if got := strings.Count(lan.log.String(), "skipped"); got != 5 {
		t.Errorf("%d entries are said to be skipped, want 5:\n%s", got, lan.log)
	}
	a.serveAll(listener(t), "A")
}

// Many changes at one time go into few writings, and all are answered.
func TestManyNeedsAreSaved(t *testing.T) {
	lan := start(t, Config{}, nil)
	a := lan.agent("one", "127.0.0.1")
	var ids []string
	for i := range 300 {
		ids = append(ids, a.begin(a.lan, ".", "addNeed", map[string]string{"instancename": fmt.Sprint("n", i)}))
	}
	for _, id := range ids {
		if got := a.answer(id); string(got.Value) != "true" {
			t.Fatalf("addNeed: %s", got.AppendJSON(nil))
		}
	}
	var entries []fields
	if err := json.Unmarshal([]byte(readFile(t, lan.directory, "needs.runtime")), &entries); err != nil || len(entries) != 300 {
		t.Errorf("needs.runtime has %d entries, error %v", len(entries), err)
	}
}

func TestNeedsCanNotBeSaved(t *testing.T) {
	lan := start(t, Config{}, nil)
	a := lan.agent("one", "127.0.0.1")
	if err := os.RemoveAll(filepath.Join(lan.directory, ".allexlanmanager")); err != nil {
		t.Fatal(err)
	}
	u := a.call(a.lan, ".", "addNeed", map[string]string{"instancename": "A"})
	if u.Code != "NEEDS_NOT_SAVED" || !strings.Contains(u.Message, "needs.runtime") {
		t.Errorf("addNeed: %s", u.AppendJSON(nil))
	}
	a.soon(a.needs, "A")
}

func TestUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(Config{Directory: file})
	if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "may write") {
		t.Errorf("a file as directory: %v", err)
	}
}

func TestTakenAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	m, err := New(Config{Directory: t.TempDir(), Listen: taken.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	err = m.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) || !strings.Contains(err.Error(), "stop what is there") {
		t.Errorf("taken address: %v", err)
	}
}
