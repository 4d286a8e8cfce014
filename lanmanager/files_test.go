package lanmanager

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	if len(left) != 7 { // with the lock
		t.Errorf("files left: %v", left)
	}

	lan = start(t, Config{Directory: lan.directory, Listeners: at(strings.Trim(lan.url, "ws:/"))}, nil)
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
	for range 2 {
		u := a.call(a.lan, ".", "addNeed", map[string]string{"instancename": "C"})
		if u.Code != "NEEDS_NOT_SAVED" || !strings.Contains(u.Message, "needs.runtime:1:") || !strings.Contains(u.Message, "repair") {
			t.Errorf("addNeed: %s", u.AppendJSON(nil))
		}
	}
	a.soon(a.needs, "C") // for now it is a need like others
	for name, want := range map[string]string{"needs": brokenNeeds, "needs.runtime": brokenRuntime, "nat": "{}"} {
		if got := readFile(t, lan.directory, name); got != want {
			t.Errorf("%s is now %s", name, got)
		}
	}

	// Repaired, it is taken in, and written over.
	writeFile(t, lan.directory, "needs.runtime", `[{"instancename":"B","modulename":"b"},{"instancename":"C","modulename":"old"}]`)
	if got := a.value(a.lan, ".", "addNeed", map[string]string{"instancename": "D"}); got != "true" {
		t.Errorf("addNeed: %s", got)
	}
	a.soon(a.needs, "C", "D", "B")
	want := "[\n  {\"instancename\":\"C\"},\n  {\"instancename\":\"D\"},\n  {\"instancename\":\"B\",\"modulename\":\"b\"}\n]\n"
	if got := readFile(t, lan.directory, "needs.runtime"); got != want {
		t.Errorf("needs.runtime is now %s", got)
	}
}

// A file with one bad entry is not overwritten either: the entry may be dear to
// somebody.
func TestOneBadEntryInRuntime(t *testing.T) {
	const bad = `[{"instancename":"B"},{"instancename":"C"},{"instancnaem":"D"}]`
	for name, repair := range map[string]func(path string) error{
		"repaired": func(path string) error {
			return os.WriteFile(path, []byte(strings.Replace(bad, "ncnaem", "ncename", 1)), 0o600)
		},
		"removed": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			lan := start(t, Config{}, map[string]string{"needs.runtime": bad})
			a := lan.agent("one", "127.0.0.1")
			a.soon(a.needs, "B", "C")
			for _, name := range []string{"B", "D"} { // neither comes back when the file is repaired
				u := a.call(a.lan, ".", "removeNeed", name)
				if u.Code != "NEEDS_NOT_SAVED" || !strings.Contains(u.Message, "needs.runtime:1:44: [2]: ") {
					t.Errorf("removeNeed: %s", u.AppendJSON(nil))
				}
			}
			if got := readFile(t, lan.directory, "needs.runtime"); got != bad {
				t.Errorf("needs.runtime is now %s", got)
			}
			must(t, repair(filepath.Join(lan.directory, ".allexlanmanager", "needs.runtime")))
			if got := a.value(a.lan, ".", "addNeed", map[string]string{"instancename": "E"}); got != "true" {
				t.Errorf("addNeed: %s", got)
			}
			a.soon(a.needs, "C", "E")
			if got, want := readFile(t, lan.directory, "needs.runtime"), "[\n  {\"instancename\":\"C\"},\n  {\"instancename\":\"E\"}\n]\n"; got != want {
				t.Errorf("needs.runtime is now %s", got)
			}
		})
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
	log := lan.log.String()
	for _, want := range []string{"needs:1:2: [0]: ", "needs:1:5: [1]: ", "needs:1:25: [2]: ", "nat:1:29: [1]: ", "nat:1:46: [2]: "} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
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

// After an error the next change is saved together with what was not.
func TestNeedsCanNotBeSaved(t *testing.T) {
	lan := start(t, Config{}, needs("static"))
	a := lan.agent("one", "127.0.0.1")
	directory := filepath.Join(lan.directory, ".allexlanmanager")
	must(t, os.RemoveAll(directory))
	for _, name := range []string{"A", "B"} {
		u := a.call(a.lan, ".", "addNeed", map[string]string{"instancename": name})
		if u.Code != "NEEDS_NOT_SAVED" || !strings.Contains(u.Message, "needs.runtime") {
			t.Errorf("addNeed: %s", u.AppendJSON(nil))
		}
	}
	a.soon(a.needs, "static", "A", "B")
	must(t, os.Mkdir(directory, 0o755))
	if got := a.value(a.lan, ".", "removeNeed", "A"); got != "true" {
		t.Errorf("removeNeed: %s", got)
	}
	if got, want := readFile(t, lan.directory, "needs.runtime"), "[\n  {\"instancename\":\"B\"}\n]\n"; got != want {
		t.Errorf("needs.runtime is %s", got)
	}
}

// Both may not write one needs.runtime, in whichever of their directories it is.
func TestTwoOfADirectory(t *testing.T) {
	base, other, shared := t.TempDir(), t.TempDir(), t.TempDir()
	for _, directory := range []string{base, other} {
		writeFile(t, directory, "boot", `{"runtimedirectory":`+strconv.Quote(shared)+`}`)
	}
	open := func(directory string) (*files, error) {
		f, _, _, err := openFiles(directory, "")
		return f, err
	}
	first, err := open(base)
	must(t, err)
	for _, directory := range []string{base, other, shared} {
		_, err := open(directory)
		taken := shared
		if directory == base {
			taken = base
		}
		want := fmt.Sprintf("another LAN manager, process %d, has %s", os.Getpid(), filepath.Join(taken, ".allexlanmanager"))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "of its own") {
			t.Errorf("a second one in %s: %v, want %s", directory, err, want)
		}
	}
	first.close()
	first.close()
	second, err := open(other) // which it left alone when it was refused
	must(t, err)
	second.close()
}

// What a crash left over goes at the next start.
func TestTemporaryFiles(t *testing.T) {
	directory := t.TempDir()
	writeFile(t, directory, ".needs.runtime.123.tmp", "[{")
	writeFile(t, directory, "mine.tmp", "")
	f, _, _, err := openFiles(directory, "")
	must(t, err)
	f.close()
	wantNames(t, directory, "boot", "lock", "mine.tmp", "nat", "needs", "needs.overlay", "needs.runtime", "subnets")
}

// The directory of an original is taken as it is, and ours is one that the
// original reads: arrays of entries with names.
func TestInterchange(t *testing.T) {
	original := map[string]string{
		"boot":          `{"portcorrection":0,"httpmonitorport":0}`,
		"subnets":       `["192.168.1.0/8"]`,
		"needs":         `[{"modulename":"allex_timeservice","instancename":"Time","propertyhash":{}}]`,
		"needs.overlay": `[]`,
		"needs.runtime": `[{"modulename":"allex_timeservice","instancename":"Time","propertyhash":{},"strategies":{"ip":[{"ip":"127.0.0.1/32","role":"user"},{"ip":"192.168.1.0/8","role":"user"}]}},{"instancename":"Added","modulename":"m"}]`,
		"nat":           `[{"iaddress":"192.168.1.1","iport":12345,"eaddress":"1.2.3.4","eport":80}]`,
	}
	s, problems, directory := set(t, original)
	if lines := said(problems, directory); lines != nil {
		t.Error(lines)
	}
	if diff := cmp.Diff([]string{"ws :23552", "ws :23451 original", "signalr :22451 original", "subnet 192.0.0.0/8"}, s.outline()); diff != "" {
		t.Error(diff)
	}
	if len(s.warnings) != 1 || !strings.Contains(s.warnings[0], "the original admitted 192.168.1.0 to 193.168.0.255") {
		t.Errorf("warnings: %q", s.warnings)
	}
	f, _, _, err := openFiles(directory, "")
	must(t, err)
	defer f.close()
	c, more := f.load()
	entries, p := f.loadRuntime()
	if lines := said(append(more, p), directory); lines != nil {
		t.Error(lines)
	}
	o := newOriginals(s.admitted)
	o.replace(c.static, c.overlay)
	o.adopt(entries)
	record, _ := o.record("Time")
	if want := `{"ip":[{"ip":"127.0.0.1/32","role":"user"},{"ip":"192.168.1.0/8","role":"user"},{"ip":"127.0.0.0/8","role":"user"}]}`; string(record.Get("strategies")) != want {
		t.Errorf("strategies: %s", record.Get("strategies"))
	}
	for name, want := range original {
		if got := readFile(t, directory, name); got != want {
			t.Errorf("%s is now %s", name, got)
		}
	}
	o.remove("Time")
	written, err := parseNeeds("needs.runtime", linewise(o.entries()))
	if err != nil || len(written) != 2 || written[0].name() != "Time" || written[0].text("modulename") != "allex_timeservice" {
		t.Errorf("needs.runtime: %s, %v", linewise(o.entries()), err)
	}
}

// Whatever a loss of power does to one file, the LAN manager starts, leaves the
// file as it is, and has all that the others say.
func TestPowerLoss(t *testing.T) {
	whole := map[string]string{
		"boot":          `{"portcorrection":1,"httpmonitorport":0,"originalports":false}`,
		"subnets":       `["10.0.0.0/8","fd00::/16"]`,
		"needs":         `[{"instancename":"A","modulename":"m"},{"instancename":"B"}]`,
		"needs.overlay": `[{"instancename":"A","timeout":9}]`,
		"needs.runtime": `[{"instancename":"C"},{"instancename":"B","removed":true}]`,
		"nat":           `[{"iaddress":"a","iport":1,"eaddress":"e","eport":2}]`,
	}
	directory := t.TempDir()
	state := func(broken string) map[string]string {
		f, s, problems, err := openFiles(directory, "")
		if err != nil {
			t.Fatalf("%s: %v", broken, err)
		}
		defer f.close()
		c, more := f.load()
		entries, p := f.loadRuntime()
		o := newOriginals(s.admitted)
		o.replace(c.static, c.overlay)
		o.adopt(entries)
		for name, content := range whole {
			if got := readFile(t, directory, name); got != content {
				t.Fatalf("%s broken: %s is now %s", broken, name, got)
			}
		}
		outline := strings.Join(s.outline(), ", ")
		if strings.Contains(strings.Join(said(problems[:1], directory), ""), "boot") && outline != strings.Join(closed, ", ") {
			t.Fatalf("boot is %s, and it listens as %s", whole["boot"], outline)
		}
		if lines := said(append(problems, append(more, p)...), directory); broken == "nothing" && lines != nil {
			t.Fatal(lines)
		}
		names := func(needs []fields) (names string) {
			for _, need := range needs {
				names += " " + need.name()
			}
			return names
		}
		return map[string]string{"boot": outline, "subnets": fmt.Sprint(s.admitted), "needs": names(c.static), "needs.overlay": names(c.overlay),
			"needs.runtime": names(entries), "nat": fmt.Sprint(len(c.nats))}
	}
	depends := map[string][]string{"boot": {"boot", "subnets"}, "subnets": {"boot", "subnets"}, "needs": {"needs", "needs.overlay"}}
	for name, content := range whole {
		writeFile(t, directory, name, content)
	}
	good := state("nothing")
	for name, content := range whole {
		spoil := func(text string) {
			whole[name] = text
			writeFile(t, directory, name, text)
			now := state(name)
			for other := range good {
				if other != name && !slices.Contains(depends[name], other) && now[other] != good[other] {
					t.Fatalf("%s is %q, and of %s there is %s, want %s", name, text, other, now[other], good[other])
				}
			}
		}
		for i := range len(content) {
			spoil(content[:i])
			spoil(content[:i] + strings.Repeat("\x00", len(content)-i))
			spoil(content[:i] + string([]byte{content[i] ^ 1<<(i%8)}) + content[i+1:])
		}
		whole[name] = content
		writeFile(t, directory, name, content)
	}
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
	m, err := New(Config{Directory: t.TempDir(), Listeners: at(taken.Addr().String())})
	if err != nil {
		t.Fatal(err)
	}
	err = m.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) || !strings.Contains(err.Error(), "stop what is there") {
		t.Errorf("taken address: %v", err)
	}
}
