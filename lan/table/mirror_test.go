package table

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/transcript"
)

func apply(t testing.TB, m *Mirror, items ...string) []string {
	t.Helper()
	var said []string
	for _, item := range items {
		changes, err := m.Apply(json.RawMessage(item))
		if err != nil {
			t.Fatalf("%s: %v", item, err)
		}
		for _, c := range changes {
			text := c.Kind.String() + " " + c.Key
			if c.FromRead {
				text += " read"
			}
			said = append(said, text)
		}
	}
	return said
}

func keys(m *Mirror) []string {
	var list []string
	for key := range m.All() {
		list = append(list, key)
	}
	return list
}

// What the real LAN manager told a client, with what that client's own tables
// had at the points at which it printed them.
func TestMirrorOfTheRecordedQueries(t *testing.T) {
	lines, err := transcript.Read("../testdata/transcripts/client-bid-cycle.log")
	if err != nil {
		t.Fatal(err)
	}
	needs, services := NewMirror(Needs), NewMirror(Services)
	mirrors := map[string]*Mirror{"q8": needs, "q9": services}
	checked := 0
	for _, line := range lines {
		if item, ok := notification(line); ok {
			if line.ID == "q28" && mirrors["q28"] == nil { // the second connection
				needs, services = NewMirror(Needs), NewMirror(Services)
				mirrors = map[string]*Mirror{"q28": needs, "q29": services}
			}
			if _, err := mirrors[line.ID].Apply(item); err != nil {
				t.Errorf("line %d: %v", line.Number, err)
			}
			continue
		}
		names, list, ok := printed(line)
		if !ok {
			continue
		}
		checked++
		if names != "" {
			if diff := cmp.Diff(names, strings.Join(keys(needs), ",")); diff != "" {
				t.Errorf("needs at line %d: %s", line.Number, diff)
			}
		}
		got := []json.RawMessage{}
		for _, r := range services.All() {
			got = append(got, r.appendVisible(nil, nil))
		}
		text, _ := json.Marshal(got)
		if diff := cmp.Diff(list, string(text)); diff != "" {
			t.Errorf("services at line %d: %s", line.Number, diff)
		}
	}
	if checked != 5 || !needs.Complete() || !services.Complete() {
		t.Errorf("%d tables were compared; complete: %v, %v", checked, needs.Complete(), services.Complete())
	}
}

// printed reads what the recorded client printed of its tables.
func printed(line transcript.Line) (needs, services string, ok bool) {
	if line.Kind != transcript.Remark {
		return "", "", false
	}
	if _, services, ok = strings.Cut(line.Text, "services before drop: "); ok {
		return "", services, true
	}
	_, rest, ok := strings.Cut(line.Text, "needs: ")
	if !ok {
		return "", "", false
	}
	needs, services, ok = strings.Cut(rest, " | services: ")
	if services == "" {
		services = "[]"
	}
	return needs, services, ok
}

func TestMirrorTakesEveryRecordedItem(t *testing.T) {
	for _, name := range []string{"client-edge-cases.log", "master-ws.log", "master-signalr.log"} {
		for _, item := range notifications(t, name) {
			schema := Needs
			if strings.Contains(string(item), `"allexcore"`) || strings.Contains(string(item), `"allex_dataservice"`) {
				schema = EngagedModules
			}
			if _, err := NewMirror(schema).Apply(item); err != nil {
				t.Errorf("%s: %v", item, err)
			}
		}
	}
}

func TestMirror(t *testing.T) {
	const key = `{"op":"eq","field":"instancename","value":"A"}`
	read := []string{`["i","Q"]`, `["rb","R"]`, `["r1","R",{"instancename":"A","ipaddress":"1"}]`, `["r1","R",{"instancename":"B","ipaddress":"1"}]`, `["re","R"]`}
	tests := []struct {
		name  string
		items []string
		said  []string
		keys  []string
	}{
		{"created", []string{`["c",{"instancename":"C"}]`}, []string{"created C"}, []string{"A", "B", "C"}},
		{"created again", []string{`["c",{"instancename":"A","ipaddress":"1"}]`}, []string{"created A"}, []string{"A", "B"}},
		{"changed", []string{`["u",` + key + `,{"tcpport":1}]`}, []string{"updated A"}, []string{"A", "B"}},
		{"changed twice the same", []string{`["u",` + key + `,{"tcpport":1}]`, `["u",` + key + `,{"tcpport":1}]`}, []string{"updated A"}, []string{"A", "B"}},
		{"changed, but it is not there", []string{`["u",{"op":"eq","field":"instancename","value":"X"},{"tcpport":1}]`}, nil, []string{"A", "B"}},
		{"all changed", []string{`["u",null,{"tcpport":1}]`}, []string{"updated A", "updated B"}, []string{"A", "B"}},
		{"nothing known changed", []string{`["u",null,{"upsert":true}]`}, nil, []string{"A", "B"}},
		{"a key does not change", []string{`["u",` + key + `,{"instancename":"B"}]`}, nil, []string{"A", "B"}},
		{"deleted", []string{`["d",` + key + `]`}, []string{"deleted A"}, []string{"B"}},
		{"deleted twice", []string{`["d",` + key + `]`, `["d",` + key + `]`}, []string{"deleted A"}, []string{"B"}},
		{"deleted by address", []string{`["d",{"op":"eq","field":"ipaddress","value":"1"}]`}, []string{"deleted A", "deleted B"}, nil},
		{"all deleted", []string{`["d",null]`}, []string{"deleted A", "deleted B"}, nil},
		{"exchanged", []string{`["ue",{"instancename":"A","pid":1},{"instancename":"A"}]`}, []string{"updated A"}, []string{"A", "B"}},
		{"renamed", []string{`["ue",{"instancename":"C"},{"instancename":"A"}]`}, []string{"deleted A", "created C"}, []string{"B", "C"}},
		{"exchanged for the same", []string{`["ue",{"instancename":"A","ipaddress":"1"},{"instancename":"A"}]`}, nil, []string{"A", "B"}},
		{"read again, the same", read, nil, []string{"A", "B"}},
		{"read again, other", []string{`["rb","S"]`, `["r1","S",{"instancename":"B"}]`, `["r1","S",{"instancename":"C"}]`, `["re","S"]`},
			[]string{"updated B read", "created C read", "deleted A read"}, []string{"B", "C"}},
		{"changes while reading", []string{`["rb","S"]`, `["c",{"instancename":"C"}]`, `["d",` + key + `]`, `["u",null,{"pid":1}]`, `["re","S"]`},
			[]string{"created C", "deleted A", "updated B", "updated C", "deleted B read"}, []string{"C"}},
		{"a reading that begins twice", []string{`["rb","S"]`, `["r1","S",{"instancename":"A","ipaddress":"1"}]`, `["rb","T"]`, `["re","T"]`},
			[]string{"deleted A read", "deleted B read"}, nil},
		{"an end without a beginning", []string{`["re","S"]`}, nil, []string{"A", "B"}},
	}
	for _, test := range tests {
		m := NewMirror(Needs)
		if m.Complete() {
			t.Error("complete before it was read")
		}
		first := apply(t, m, read...)
		if diff := cmp.Diff([]string{"created A read", "created B read"}, first); diff != "" || !m.Complete() {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(test.said, apply(t, m, test.items...)); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
		if diff := cmp.Diff(test.keys, keys(m)); diff != "" || m.Len() != len(test.keys) {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

func TestMirrorSaysOldAndNew(t *testing.T) {
	m := NewMirror(Needs)
	apply(t, m, `["c",{"instancename":"A","ipaddress":"10.0.0.0/8"}]`)
	changes, err := m.Apply(json.RawMessage(`["u",null,{"ipaddress":"10.1.2.3"}]`))
	if err != nil || len(changes) != 1 {
		t.Fatal(changes, err)
	}
	now, ok := m.Get("A")
	if !ok || changes[0].Old.Text("ipaddress") != "10.0.0.0/8" || !changes[0].New.Equal(now) || now.Text("ipaddress") != "10.1.2.3" {
		t.Errorf("old %s, new %s", changes[0].Old.JSON(), changes[0].New.JSON())
	}
}

func TestMirrorRefuses(t *testing.T) {
	m := NewMirror(Needs)
	apply(t, m, `["c",{"instancename":"A"}]`)
	for _, item := range []string{
		``, `null`, `[]`, `["c"]`, `["x",1]`, `[1,2]`, `["c",5]`, `["c",{}]`, `["r1","R",{}]`, `["u",{"op":"eq"},{}]`, `["u",null,5]`,
		`["d",{"op":"and"}]`, `["ue",5,{}]`, `["d",null`, `["c",{"instancename":"B","propertyhash":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}]`,
	} {
		if changes, err := m.Apply(json.RawMessage(item)); err == nil || len(changes) > 0 {
			t.Errorf("%s: %v, %v", item, changes, err)
		}
	}
	if m.Len() != 1 {
		t.Errorf("%d records", m.Len())
	}
}

func TestMirrorIsBounded(t *testing.T) {
	m := NewMirror(Needs)
	m.rows.limit = 10_000
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		_, err = m.Apply(fmt.Appendf(nil, `["c",{"instancename":"N%d"}]`, n))
	}
	if !errors.Is(err, ErrFull) || n < 10 || n > 50 {
		t.Errorf("after %d records: %v", n, err)
	}
	if _, err := m.Apply([]byte(`["u",null,{"modulename":"` + strings.Repeat("x", 10_000) + `"}]`)); !errors.Is(err, ErrFull) {
		t.Errorf("a long change: %v", err)
	}
	apply(t, m, `["d",null]`)
	if m.rows.bytes != 0 {
		t.Errorf("an empty mirror counts %d bytes", m.rows.bytes)
	}
	apply(t, m, `["c",{"instancename":"again"}]`)
}

// Whatever comes, a mirror keeps its books.
func FuzzMirrorApply(f *testing.F) {
	for _, name := range []string{"client-bid-cycle.log", "client-edge-cases.log"} {
		items := notifications(f, name)
		for i, item := range items {
			f.Add([]byte(item), []byte(items[(i+1)%len(items)]))
		}
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		m := NewMirror(Needs)
		for _, item := range [][]byte{
			[]byte(`["rb","R"]`), []byte(`["r1","R",{"instancename":"Probe"}]`), first, []byte(`["re","R"]`), second, first,
		} {
			before := make(map[string]Record)
			for key, r := range m.All() {
				before[key] = r
			}
			changes, _ := m.Apply(item)
			for _, c := range changes {
				old := before[c.Key]
				if !old.Equal(c.Old) || c.New.IsZero() != (c.Kind == Deleted) || c.Kind == Updated && c.Old.IsZero() {
					t.Fatalf("%q: change %+v, it was %s", item, c, old.JSON())
				}
				if before[c.Key] = c.New; c.New.IsZero() {
					delete(before, c.Key)
				}
			}
			bytes := 0
			for key, r := range m.All() {
				if got, ok := m.Get(key); !ok || !got.Equal(r) || !before[key].Equal(r) || !json.Valid(r.JSON()) {
					t.Fatalf("%q: %s is %s, its changes say %s", item, key, r.JSON(), before[key].JSON())
				}
				bytes += cost(r)
			}
			if len(before) != m.Len() || bytes != m.rows.bytes {
				t.Fatalf("%q: %d records of %d bytes, counted %d of %d", item, len(before), bytes, m.Len(), m.rows.bytes)
			}
		}
	})
}
