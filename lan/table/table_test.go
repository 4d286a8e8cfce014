package table

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// counter makes ids "1", "2" ...
func counter() func() string {
	n := 0
	return func() string {
		n++
		return strconv.Itoa(n)
	}
}

// listener collects the items of a query.
type listener struct{ items []string }

func (l *listener) emit(item json.RawMessage) { l.items = append(l.items, string(item)) }

// take returns what came since it was called last.
func (l *listener) take() []string {
	items := l.items
	l.items = nil
	return items
}

func query(t testing.TB, s *Schema, text string) Query {
	t.Helper()
	q, err := ParseQuery(s, json.RawMessage(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return q
}

func put(t testing.TB, table *Table, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := table.Put(parse(t, table.rows.schema, text)); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

func TestQueryReads(t *testing.T) {
	table := New(EngagedModules, counter())
	put(t, table, `{"modulename":"a"}`, `{"modulename":"b"}`, `{"modulename":"c"}`)
	tests := map[string][]string{
		`null`: {`["i","1"]`, `["rb","2"]`, `["r1","2",{"modulename":"a"}]`, `["r1","2",{"modulename":"b"}]`, `["r1","2",{"modulename":"c"}]`, `["re","2"]`},
		`{"filter":{"op":"eq","field":"modulename","value":"b"}}`:     {`["i","1"]`, `["rb","2"]`, `["r1","2",{"modulename":"b"}]`, `["re","2"]`},
		`{"limit":1,"offset":1}`:                                      {`["i","1"]`, `["rb","2"]`, `["r1","2",{"modulename":"b"}]`, `["re","2"]`},
		`{"offset":2,"limit":5}`:                                      {`["i","1"]`, `["rb","2"]`, `["r1","2",{"modulename":"c"}]`, `["re","2"]`},
		`{"visiblefields":["modulename","x","modulename"],"limit":1}`: {`["i","1"]`, `["rb","2"]`, `["r1","2",{"modulename":"a"}]`, `["re","2"]`},
		`{"visiblefields":["x"],"limit":1}`:                           {`["i","1"]`, `["rb","2"]`, `["r1","2",{}]`, `["re","2"]`},
	}
	for text, want := range tests {
		var l listener
		table.newID = counter()
		id, stop := table.Query(query(t, EngagedModules, text), l.emit)
		put(t, table, `{"modulename":"later"}`)
		table.Delete(Eq("modulename", "later"))
		if diff := cmp.Diff(want, l.take()); diff != "" || id != "1" {
			t.Errorf("%s: %s", text, diff)
		}
		stop()
	}
}

func TestParseQueryRefuses(t *testing.T) {
	for _, text := range []string{
		`5`, `"*"`, `[]`, `{"limit":-1}`, `{"limit":"1"}`, `{"offset":1.5}`, `{"visiblefields":5}`, `{"visiblefields":[5]}`,
		`{"filter":{"op":"eq"}}`, `{"continuous":true`, `nonsense`,
	} {
		if _, err := ParseQuery(Needs, json.RawMessage(text)); err == nil {
			t.Errorf("%s is a query", text)
		}
	}
	q := query(t, Needs, `{"continuous":true,"singleshot":false,"filter":"*","visiblefields":null,"limit":null}`)
	if !q.Continuous || q.VisibleFields != nil || q.Limit != 0 {
		t.Errorf("got %+v", q)
	}
}

func TestContinuousQueries(t *testing.T) {
	table := New(Needs, counter())
	all, open, few := &listener{}, &listener{}, &listener{}
	_, closeAll := table.Query(query(t, Needs, `{"continuous":true}`), all.emit)
	_, closeOpen := table.Query(query(t, Needs, `{"continuous":true,"filter":"unsatisfied"}`), open.emit)
	_, closeFew := table.Query(query(t, Needs, `{"continuous":true,"visiblefields":["instancename","pid"]}`), few.emit)
	all.take()
	open.take()
	few.take()
	hear := func(step string, wantAll, wantOpen, wantFew []string) {
		t.Helper()
		for _, got := range []struct {
			name  string
			want  []string
			items []string
		}{{"all", wantAll, all.take()}, {"unsatisfied", wantOpen, open.take()}, {"few", wantFew, few.take()}} {
			if diff := cmp.Diff(got.want, got.items); diff != "" {
				t.Errorf("%s, %s: %s", step, got.name, diff)
			}
		}
	}
	const filter = `{"op":"eq","field":"instancename","value":"A"}`
	record := string(parse(t, Needs, `{"instancename":"A","modulename":"m"}`).JSON())

	put(t, table, record, record)
	created := []string{`["c",` + record + `]`}
	hear("created", created, created, []string{`["c",{"instancename":"A","pid":null}]`})

	update := func(partial string) {
		t.Helper()
		if n, err := table.Update(Eq("instancename", "A"), json.RawMessage(partial)); n != 1 || err != nil {
			t.Errorf("%d records, %v", n, err)
		}
	}
	update(`{"pid":7,"ipaddress":"127.0.0.1","instancename":"B"}`)
	changed := []string{`["u",` + filter + `,{"ipaddress":"127.0.0.1","pid":7}]`}
	hear("changed", changed, changed, []string{`["u",` + filter + `,{"pid":7}]`})

	update(`{"tcpport":15000}`)
	hear("satisfied", []string{`["u",` + filter + `,{"tcpport":15000}]`}, []string{`["d",` + filter + `]`}, nil)

	update(`{"tcpport":15000}`)
	hear("changed to the same", nil, nil, nil)

	update(`{"tcpport":null}`)
	hear("open again", []string{`["u",` + filter + `,{"tcpport":null}]`},
		[]string{`["c",` + strings.NewReplacer(`"ipaddress":null`, `"ipaddress":"127.0.0.1"`, `"pid":null`, `"pid":7`).Replace(record) + `]`}, nil)

	closeFew()
	closeFew()
	put(t, table, `{"instancename":"B","ipaddress":"127.0.0.1"}`, `{"instancename":"C","ipaddress":"10.0.0.1"}`)
	all.take()
	open.take()
	if n := table.Delete(Eq("ipaddress", "127.0.0.1")); n != 2 || table.Len() != 1 {
		t.Errorf("%d deleted, %d left", n, table.Len())
	}
	hear("deleted", []string{`["d",{"op":"eq","field":"ipaddress","value":"127.0.0.1"}]`},
		[]string{`["d",` + filter + `]`, `["d",{"op":"eq","field":"instancename","value":"B"}]`}, nil)

	if n := table.Delete(Eq("ipaddress", "127.0.0.1")); n != 0 {
		t.Errorf("%d deleted", n)
	}
	hear("deleted again", nil, nil, nil)
	closeAll()
	closeOpen()
	table.Delete(Filter{})
	hear("closed", nil, nil, nil)
}

// A window shows at every moment what a reading would.
func TestWindow(t *testing.T) {
	table := New(EngagedModules, counter())
	put(t, table, `{"modulename":"a"}`, `{"modulename":"b"}`, `{"modulename":"c"}`)
	l := &listener{}
	_, stop := table.Query(query(t, EngagedModules, `{"continuous":true,"limit":2,"offset":1,"filter":{"op":"regex","field":"modulename","value":"^[a-f]$"}}`), l.emit)
	defer stop()
	c := func(name string) string { return `["c",{"modulename":"` + name + `"}]` }
	d := func(name string) string { return `["d",{"op":"eq","field":"modulename","value":"` + name + `"}]` }
	hear := func(step string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, l.take()); diff != "" {
			t.Errorf("%s: %s", step, diff)
		}
	}
	l.take()
	put(t, table, `{"modulename":"d"}`, `{"modulename":"x"}`)
	hear("one behind the window, one that does not match")
	table.Delete(Eq("modulename", "c"))
	hear("the next one enters", d("c"), c("d"))
	table.Delete(Eq("modulename", "a"))
	hear("one before the window goes, nobody waits behind", d("b"))
	put(t, table, `{"modulename":"e"}`, `{"modulename":"f"}`)
	hear("room for one", c("e"))
	table.Delete(Eq("modulename", "b"))
	hear("one before the window goes", d("d"), c("f"))
	table.Delete(Eq("modulename", "x"))
	hear("one that does not match goes")
	table.Delete(Filter{})
	hear("all go", d("e"), d("f"))
}

func TestWindowOfARecordThatChanges(t *testing.T) {
	table := New(Needs, counter())
	put(t, table, `{"instancename":"A","pid":7}`, `{"instancename":"B"}`, `{"instancename":"C"}`)
	m := NewMirror(Needs)
	_, stop := table.Query(query(t, Needs, `{"continuous":true,"limit":1,"offset":1,"filter":{"op":"notexists","field":"pid"},"visiblefields":["modulename","instancename","modulename"]}`), func(item json.RawMessage) { apply(t, m, string(item)) })
	defer stop()
	for i, step := range []struct{ name, partial, want string }{
		{"A", `{"pid":null}`, "B"},       // before the window
		{"C", `{"modulename":"m"}`, "B"}, // behind it
		{"B", `{"modulename":"m"}`, "B"}, // in it
		{"B", `{"pid":7}`, "C"},          // out of it
		{"C", `{"pid":7}`, ""},           // out of it, nobody behind
		{"B", `{"pid":null}`, "B"},       // back in its old place
		{"C", `{"pid":null}`, "B"},       // behind
		{"A", `{"pid":8}`, "C"},          // from before the window
	} {
		if _, err := table.Update(Eq("instancename", step.name), json.RawMessage(step.partial)); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(keys(m), " "); got != step.want {
			t.Fatalf("step %d: %q, want %q", i, got, step.want)
		}
	}
	if r, _ := m.Get("C"); r.Text("modulename") != "m" {
		t.Errorf("C has %s", r.JSON())
	}
}

// Queries that ask for the same are told the same, and each can be closed alone.
func TestManyOfOneView(t *testing.T) {
	table := New(EngagedModules, counter())
	listeners := make([]listener, 5)
	var stops []func()
	for i := range listeners {
		text := `{"continuous":true,"filter":{"op":"ne","field":"modulename","value":"x"}}`
		_, stop := table.Query(query(t, EngagedModules, text), listeners[i].emit)
		stops = append(stops, stop)
		listeners[i].take()
	}
	if len(table.views) != 1 {
		t.Errorf("%d views", len(table.views))
	}
	open := map[int]bool{0: true, 1: true, 2: true, 3: true, 4: true}
	for step, closed := range []int{1, 4, 1, 0, 3, 2, 2} {
		stops[closed]()
		delete(open, closed)
		put(t, table, `{"modulename":"m`+strconv.Itoa(step)+`"}`)
		for i := range listeners {
			if got := len(listeners[i].take()) == 1; got != open[i] {
				t.Errorf("after step %d: query %d was told: %v", step, i, got)
			}
		}
	}
	if len(table.views) != 0 {
		t.Errorf("%d views are left", len(table.views))
	}
}

func TestQueriesThatDifferHaveTheirOwnViews(t *testing.T) {
	table := New(Needs, counter())
	texts := []string{
		`{"continuous":true}`, `{"continuous":true,"filter":{"op":"exists","field":"pid"}}`, `{"continuous":true,"visiblefields":[]}`,
		`{"continuous":true,"visiblefields":["pid"]}`, `{"continuous":true,"visiblefields":["instancename"]}`,
		`{"continuous":true,"limit":1}`, `{"continuous":true,"limit":2}`, `{"continuous":true,"limit":1,"offset":1}`,
	}
	for range 2 {
		for _, text := range texts {
			table.Query(query(t, Needs, text), func(json.RawMessage) {})
		}
	}
	if len(table.views) != len(texts) {
		t.Errorf("%d views of %d different queries", len(table.views), len(texts))
	}
}

func TestHiddenFields(t *testing.T) {
	table := New(Services, counter())
	l := &listener{}
	_, stop := table.Query(query(t, Services, `{"continuous":true}`), l.emit)
	defer stop()
	named := &listener{}
	_, stopNamed := table.Query(query(t, Services, `{"continuous":true,"visiblefields":["created"]}`), named.emit)
	defer stopNamed()
	put(t, table, `{"instancename":"A","created":1795354463398}`)
	put(t, table, `{"instancename":"A","created":1795354463399}`)
	if r, _ := table.Get("A"); r.Int("created") != 1795354463399 {
		t.Errorf("created %s", r.Get("created"))
	}
	table.Delete(Eq("created", 1795354463399))
	for _, item := range append(l.take(), named.take()...) {
		if strings.Contains(item, "created") {
			t.Errorf("told %s", item)
		}
	}
}

func TestTwoKeyFields(t *testing.T) {
	table := New(NATs, counter())
	l := &listener{}
	_, stop := table.Query(query(t, NATs, `{"continuous":true}`), l.emit)
	defer stop()
	put(t, table, `{"iaddress":"1.1.1.1","iport":[1,2],"eport":0}`, `{"iaddress":"1.1.1.1","iport":80,"eport":0}`)
	l.take()
	put(t, table, `{"iaddress":"1.1.1.1","iport":[1,2],"eport":9}`)
	want := []string{`["u",{"op":"and","filters":[{"op":"eq","field":"iaddress","value":"1.1.1.1"},{"op":"eq","field":"iport","value":[1,2]}]},{"eport":9}]`}
	if diff := cmp.Diff(want, l.take()); diff != "" {
		t.Error(diff)
	}
	m := NewMirror(NATs)
	apply(t, m, `["c",{"iaddress":"1.1.1.1","iport":[1,2],"eport":0}]`, `["c",{"iaddress":"1.1.1.1","iport":80}]`)
	if said := apply(t, m, want...); len(said) != 1 {
		t.Errorf("a mirror said %v", said)
	}
}

func TestCreate(t *testing.T) {
	table := New(EngagedModules, counter())
	r := parse(t, EngagedModules, `{"modulename":"m"}`)
	if err := table.Create(r); err != nil {
		t.Error(err)
	}
	if err := table.Create(r); !errors.Is(err, ErrExists) {
		t.Errorf("error %v", err)
	}
	table.rows.limit = 10
	if err := table.Create(parse(t, EngagedModules, `{"modulename":"n"}`)); !errors.Is(err, ErrFull) {
		t.Errorf("error %v", err)
	}
	if _, err := table.Update(Filter{}, json.RawMessage(`[]`)); err == nil {
		t.Error("an array is no change")
	}
}

func TestOrderStays(t *testing.T) {
	table := New(EngagedModules, counter())
	for i := range 1000 {
		put(t, table, fmt.Sprintf(`{"modulename":"m%d"}`, i))
		if i%3 != 0 {
			table.Delete(Eq("modulename", fmt.Sprintf("m%d", i-1)))
		}
	}
	last := -1
	for key := range table.All() {
		n, err := strconv.Atoi(key[1:])
		if err != nil || n <= last {
			t.Fatalf("%s comes after m%d", key, last)
		}
		last = n
		if n == 500 {
			break
		}
	}
	if len(table.rows.list) > 3*table.Len()+64 {
		t.Errorf("%d places for %d records", len(table.rows.list), table.Len())
	}
}

// The burst of a thousand needs that are served: what one agent's mirror of the
// needs has to take.
func BenchmarkMirrorOfAThousandNeeds(b *testing.B) {
	var items []json.RawMessage
	source := New(Needs, counter())
	source.Query(Query{Continuous: true}, func(item json.RawMessage) { items = append(items, item) })
	for i := range 1000 {
		key := fmt.Sprintf("Need%d", i)
		put(b, source, fmt.Sprintf(`{"instancename":%q,"modulename":"m","strategies":{"ip":[{"ip":"127.0.0.1/32","role":"user"},{"ip":"127.0.0.0/8","role":"user"}]}}`, key))
		for _, partial := range []string{`{"pid":7}`, `{"ipaddress":"127.0.0.1"}`, `{"tcpport":15000}`, `{"httpport":16000}`, `{"wsport":17000}`, `{"closed":true}`} {
			if _, err := source.Update(Eq("instancename", key), json.RawMessage(partial)); err != nil {
				b.Fatal(err)
			}
		}
	}
	for i := range 1000 {
		source.Delete(Eq("instancename", fmt.Sprintf("Need%d", i)))
	}
	b.ReportAllocs()
	for b.Loop() {
		m := NewMirror(Needs)
		for _, item := range items {
			if _, err := m.Apply(item); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(len(items)), "items/op")
}

// Deletion by key from a large table must not walk it.
func BenchmarkDeleteByKey(b *testing.B) {
	table := New(Needs, counter())
	for i := range 10_000 {
		put(b, table, fmt.Sprintf(`{"instancename":"N%d"}`, i))
	}
	r := parse(b, Needs, `{"instancename":"X"}`)
	for b.Loop() {
		if err := table.Put(r); err != nil {
			b.Fatal(err)
		}
		if table.Delete(Eq("instancename", "X")) != 1 {
			b.Fatal("not deleted")
		}
	}
}
