package lanmanager

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExtend(t *testing.T) {
	for _, tt := range [][3]string{
		{`{}`, `{}`, `{}`},
		{`{"a":1}`, `{"b":2}`, `{"a":1,"b":2}`},
		{`{"a":1}`, `{"a":null}`, `{"a":null}`},
		{`{"a":{"b":1,"c":{"d":2}}}`, `{"a":{"c":{"e":3},"b":{"x":1}}}`, `{"a":{"b":{"x":1},"c":{"d":2,"e":3}}}`},
		{`{"a":[1,2,3]}`, `{"a":[4]}`, `{"a":[4]}`},
		{`{"a":[1]}`, `{"a":{"0":2}}`, `{"a":{"0":2}}`},
		{`{"a":{"b":1}}`, `{"a":[]}`, `{"a":[]}`},
		{`{"a":{"b":1}}`, `{"a":{}}`, `{"a":{"b":1}}`},
		{`{"a":1}`, `{"a":{}}`, `{"a":{}}`},
		{`{"a":"<&>"}`, `{}`, `{"a":"<&>"}`},
	} {
		under, over := parsed(t, tt[0]), parsed(t, tt[1])
		if got := marshal(extend(under, over)); !equalJSON(t, got, tt[2]) {
			t.Errorf("%s over %s is %s, want %s", tt[1], tt[0], got, tt[2])
		}
		if !equalJSON(t, marshal(under), tt[0]) || !equalJSON(t, marshal(over), tt[1]) {
			t.Errorf("extending changed its layers to %s and %s", marshal(under), marshal(over))
		}
	}
	if got := extend(nil, nil); got == nil {
		t.Error("nothing over nothing is nil")
	}
}

func parsed(t *testing.T, text string) fields {
	t.Helper()
	var f fields
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func equalJSON(t *testing.T, a json.RawMessage, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatal(err)
	}
	return cmp.Equal(x, y)
}

func needsOf(t *testing.T, texts ...string) (needs []fields) {
	for _, text := range texts {
		needs = append(needs, parsed(t, text))
	}
	return needs
}

func (o *originals) property(name string) string {
	record, _ := o.record(name)
	return string(record.Get("propertyhash"))
}

func TestLayers(t *testing.T) {
	o := newOriginals([]peerRole{{"127.0.0.1/32", "user"}, {"10.0.0.0/8", "user"}})
	changed := o.replace(needsOf(t, `{"instancename":"A","modulename":"m","propertyhash":{"a":1,"b":{"c":1}}}`, `{"instancename":"B","strategies":{"ip":[{"ip":"10.0.0.0/8","role":"user"},{"ip":"::1","role":"x"}],"other":{}}}`),
		needsOf(t, `{"instancename":"A","propertyhash":{"b":{"d":2}}}`, `{"instancename":"A","propertyhash":{"a":3}}`, `{"instancename":"nobody"}`))
	if diff := cmp.Diff([]string{"A", "B"}, changed); diff != "" {
		t.Error(diff)
	}
	o.adopt(needsOf(t, `{"instancename":"C","modulename":"n"}`, `{"instancename":"A","propertyhash":{"b":{"c":9}}}`, `{"instancename":"B","removed":true}`))
	if diff := cmp.Diff([]string{"A", "B", "C"}, o.names); diff != "" {
		t.Error(diff)
	}
	if got := o.property("A"); got != `{"a":3,"b":{"c":9,"d":2}}` {
		t.Errorf("propertyhash of A: %s", got)
	}
	if _, wanted := o.record("B"); wanted {
		t.Error("B is wanted")
	}
	if err := o.add(parsed(t, `{"instancename":"B"}`)); err != nil {
		t.Fatal(err)
	}
	b, _ := o.record("B")
	if got := string(b.Get("strategies")); got != `{"ip":[{"ip":"10.0.0.0/8","role":"user"},{"ip":"::1","role":"x"},{"ip":"127.0.0.1/32","role":"user"}],"other":{}}` {
		t.Errorf("strategies of B: %s", got)
	}
	for name, want := range map[string]string{"A": "needs.runtime", "B": "needs.runtime", "C": "needs.runtime", "D": ""} {
		if got := o.source(name); got != want {
			t.Errorf("source of %s: %q, want %q", name, got, want)
		}
	}
	o = newOriginals(nil)
	o.replace(needsOf(t, `{"instancename":"A"}`, `{"instancename":"B"}`), needsOf(t, `{"instancename":"B","timeout":5}`))
	if o.source("A") != "needs" || o.source("B") != "needs.overlay" {
		t.Errorf("sources: %s, %s", o.source("A"), o.source("B"))
	}
}

// The names that replace returns are those that a user of the table would see
// change.
func TestReplace(t *testing.T) {
	o := newOriginals(nil)
	static := func(texts ...string) []fields { return needsOf(t, texts...) }
	o.replace(static(`{"instancename":"A"}`, `{"instancename":"B"}`, `{"instancename":"C"}`), nil)
	for _, name := range []string{"R", "A"} {
		if err := o.add(parsed(t, `{"instancename":"`+name+`","modulename":"m"}`)); err != nil {
			t.Fatal(err)
		}
	}
	o.remove("C")
	for _, step := range []struct {
		static, overlay []fields
		changed, names  []string
	}{
		{static(`{"instancename":"A"}`, `{"instancename":"B"}`, `{"instancename":"C"}`), nil, nil, []string{"A", "B", "C", "R"}},
		{static(`{"instancename":"C"}`, `{"instancename":"B","unknown":1}`, `{"instancename":"A"}`), nil, nil, []string{"C", "B", "A", "R"}},
		{static(`{"instancename":"A"}`, `{"instancename":"B","timeout":5}`, `{"instancename":"C"}`), nil, []string{"B"}, []string{"A", "B", "C", "R"}},
		{static(`{"instancename":"A"}`, `{"instancename":"B"}`, `{"instancename":"C"}`), static(`{"instancename":"B","timeout":5}`), nil, []string{"A", "B", "C", "R"}},
		{static(`{"instancename":"A"}`, `{"instancename":"B"}`), nil, []string{"B"}, []string{"A", "B", "C", "R"}},
		{static(`{"instancename":"B"}`, `{"instancename":"D"}`), nil, []string{"D"}, []string{"B", "D", "A", "C", "R"}}, // A is what was added
		{static(`{"instancename":"C"}`), nil, []string{"B", "D"}, []string{"C", "A", "R"}},                              // C was removed for good
		{static(`{"instancename":"R","modulename":"other","timeout":9}`), nil, []string{"R"}, []string{"R", "C", "A"}},
		{nil, nil, []string{"R"}, []string{"R", "C", "A"}},
	} {
		if diff := cmp.Diff(step.changed, o.replace(step.static, step.overlay)); diff != "" {
			t.Errorf("changed by %s: %s", marshal(step.static), diff)
		}
		if diff := cmp.Diff(step.names, o.names); diff != "" {
			t.Errorf("names after %s: %s", marshal(step.static), diff)
		}
	}
	// And what holds now is what holds after a restart.
	again := newOriginals(nil)
	again.replace(nil, nil)
	again.adopt(o.entries())
	if diff := cmp.Diff(o.texts(), again.texts()); diff != "" {
		t.Error(diff)
	}
}

// texts are the records by name.
func (o *originals) texts() map[string]string {
	texts := map[string]string{}
	for name, record := range o.records {
		texts[name] = string(record.JSON())
	}
	return texts
}

// What is in memory is newer than a file that was repaired.
func TestAdoptLate(t *testing.T) {
	o := newOriginals(nil)
	o.replace(needsOf(t, `{"instancename":"A"}`, `{"instancename":"B"}`), nil)
	if err := o.add(parsed(t, `{"instancename":"X","timeout":1}`)); err != nil {
		t.Fatal(err)
	}
	o.remove("A")
	changed := o.adopt(needsOf(t, `{"instancename":"X","timeout":2}`, `{"instancename":"A","timeout":3}`,
		`{"instancename":"B","timeout":4}`, `{"instancename":"Y"}`))
	if diff := cmp.Diff([]string{"B", "Y"}, changed); diff != "" {
		t.Error(diff)
	}
	var texts []string
	for _, need := range o.entries() {
		texts = append(texts, string(marshal(need)))
	}
	want := `{"instancename":"A","removed":true} {"instancename":"B","timeout":4} {"instancename":"X","timeout":1} {"instancename":"Y"}`
	if got := strings.Join(texts, " "); got != want {
		t.Errorf("entries %s, want %s", got, want)
	}
}

// A need that can not be is refused, and leaves what was there as it was.
func TestAddRefused(t *testing.T) {
	o := newOriginals(nil)
	for _, name := range []string{"old", "new"} {
		if name == "old" {
			if err := o.add(parsed(t, `{"instancename":"old","modulename":"m"}`)); err != nil {
				t.Fatal(err)
			}
		}
		deep := strings.Repeat(`[`, 80) + strings.Repeat(`]`, 80)
		if err := o.add(parsed(t, `{"instancename":"`+name+`","propertyhash":`+deep+`}`)); err == nil {
			t.Fatalf("%s: no error", name)
		}
	}
	record, wanted := o.record("old")
	if _, isNew := o.record("new"); isNew || !wanted || record.Text("modulename") != "m" || len(o.names) != 1 || len(o.entries()) != 1 {
		t.Errorf("names %s, entries %s", o.names, o.entries())
	}
}
