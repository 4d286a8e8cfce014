package table

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var (
	names      = rapid.SampledFrom([]string{"A", "B", "C", "D", "E", "F", "G"})
	addresses4 = rapid.SampledFrom([]string{`null`, `"10.0.0.1"`, `"10.0.0.2"`, `"10.0.0.0/8"`})
	numbers    = rapid.SampledFrom([]string{`null`, `1`, `7`, `15000`})
)

// anyFilter draws the text of a filter of every kind there is.
func anyFilter(t *rapid.T, depth int) string {
	kinds := []string{"all", "unsatisfied", "name", "names", "address", "number", "exists", "text", "hash", "network", "bits"}
	if depth > 0 {
		kinds = append(kinds, "not", "and", "or")
	}
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	field := func(op, field, value string) string {
		return fmt.Sprintf(`{"op":%q,"field":%q,"value":%s}`, op, field, value)
	}
	switch kind := rapid.SampledFrom(kinds).Draw(t, "kind"); kind {
	case "unsatisfied":
		return `"unsatisfied"`
	case "name":
		return field(pick("op", "eq", "ne", "gt", "lte"), "instancename", fmt.Sprintf("%q", names.Draw(t, "name")))
	case "names":
		return field(pick("op", "in", "nin"), "instancename", fmt.Sprintf("[%q,%q]", names.Draw(t, "name"), names.Draw(t, "name")))
	case "address":
		return field("eq", "ipaddress", addresses4.Draw(t, "address"))
	case "number":
		return field(pick("op", "eq", "ne", "gt", "gte", "lt", "lte"), "pid", numbers.Draw(t, "number"))
	case "exists":
		return field(pick("op", "exists", "notexists"), pick("field", "pid", "tcpport", "propertyhash.a"), "null")
	case "text":
		return field(pick("op", "startswith", "endswith", "contains", "regex"), "ipaddress", pick("text", `"10"`, `"2"`, `"0.0"`))
	case "hash":
		return `{"op":"hash","d":{"pid":` + numbers.Draw(t, "number") + `}}`
	case "network":
		return field("cidr_match", "ipaddress", pick("network", `["10.0.0.0/31"]`, `"10.0.0.2"`))
	case "bits":
		return field(pick("op", "bitmaskany", "bitmaskall"), "pid", `[0,2]`)
	case "not":
		return `{"op":"not","filter":` + anyFilter(t, depth-1) + `}`
	case "and", "or":
		return `{"op":"` + kind + `","filters":[` + anyFilter(t, depth-1) + `,` + anyFilter(t, depth-1) + `]}`
	}
	return `null`
}

func anyQuery(t *rapid.T) string {
	members := []string{`"continuous":true`, `"filter":` + anyFilter(t, 2)}
	if rapid.Bool().Draw(t, "some fields") {
		members = append(members, `"visiblefields":["instancename","pid"]`)
	}
	if rapid.Bool().Draw(t, "window") {
		members = append(members, fmt.Sprintf(`"limit":%d,"offset":%d`, rapid.IntRange(0, 4).Draw(t, "limit"), rapid.IntRange(0, 4).Draw(t, "offset")))
	}
	return `{` + strings.Join(members, ",") + `}`
}

// Every mirror of every query has at every moment what a reading with that query
// says, whatever is done to the table.
func TestMirrorsFollowTheTable(t *testing.T) {
	type follower struct {
		query  Query
		text   string
		mirror *Mirror
		stop   func()
	}
	rapid.Check(t, func(t *rapid.T) {
		table := New(Needs, counter())
		var followers []follower
		partial := func() string {
			return fmt.Sprintf(`{"ipaddress":%s,"pid":%s,"tcpport":%s,"propertyhash":{"a":%s}}`, addresses4.Draw(t, "address"),
				numbers.Draw(t, "pid"), numbers.Draw(t, "port"), numbers.Draw(t, "property"))
		}
		mirrored := func(q Query) (*Mirror, func()) {
			m := NewMirror(Needs)
			_, stop := table.Query(q, func(item json.RawMessage) {
				changes, err := m.Apply(item)
				if err != nil {
					t.Fatalf("%s: %v", item, err)
				}
				for _, c := range changes {
					if c.Kind == Created && !c.Old.IsZero() {
						t.Fatalf("%s: it was there already", item)
					}
				}
			})
			return m, stop
		}
		filter := func() Filter {
			f, err := ParseFilter(Needs, []byte(anyFilter(t, 1)))
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				r, err := Needs.Parse(fmt.Appendf(nil, `{"instancename":%q}`, names.Draw(t, "name")))
				if err == nil {
					r, err = r.With([]byte(partial()))
				}
				if err == nil {
					err = table.Put(r)
				}
				if err != nil {
					t.Fatal(err)
				}
			},
			"update": func(t *rapid.T) {
				if _, err := table.Update(filter(), []byte(partial())); err != nil {
					t.Fatal(err)
				}
			},
			"update one": func(t *rapid.T) {
				if _, err := table.Update(Eq("instancename", names.Draw(t, "name")), []byte(partial())); err != nil {
					t.Fatal(err)
				}
			},
			"delete":     func(*rapid.T) { table.Delete(filter()) },
			"delete one": func(t *rapid.T) { table.Delete(Eq("instancename", names.Draw(t, "name"))) },
			"query": func(t *rapid.T) {
				text := anyQuery(t)
				if len(followers) > 0 && rapid.Bool().Draw(t, "as another") {
					text = followers[0].text
				}
				q, err := ParseQuery(Needs, []byte(text))
				if err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				f := follower{query: q, text: text}
				f.mirror, f.stop = mirrored(q)
				followers = append(followers, f)
			},
			"close": func(t *rapid.T) {
				if len(followers) > 0 {
					i := rapid.IntRange(0, len(followers)-1).Draw(t, "which")
					followers[i].stop()
					followers = append(followers[:i:i], followers[i+1:]...)
				}
			},
			"": func(t *rapid.T) {
				for _, f := range followers {
					once := f.query
					once.Continuous = false
					fresh, _ := mirrored(once)
					for key, want := range fresh.All() {
						if got, ok := f.mirror.Get(key); !ok || !got.Equal(want) {
							t.Fatalf("%s: a mirror has %s, a reading %s", f.text, got.JSON(), want.JSON())
						}
					}
					if fresh.Len() != f.mirror.Len() {
						t.Fatalf("%s: a mirror has %d records, a reading %d", f.text, f.mirror.Len(), fresh.Len())
					}
				}
			},
		})
	})
}

// A query that was parsed means the same when it is asked of a table twice.
func FuzzParseQuery(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		q, err := ParseQuery(Needs, text)
		if err != nil {
			return
		}
		if q.Limit < 0 || q.Offset < 0 {
			t.Fatalf("limit %d, offset %d", q.Limit, q.Offset)
		}
		table := New(Needs, func() string { return "id" })
		for _, record := range []string{`{"instancename":"A","pid":1}`, `{"instancename":"B","pid":2}`, `{"instancename":"C","ipaddress":"10.0.0.1"}`} {
			put(t, table, record)
		}
		var first, second listener
		_, stop := table.Query(q, first.emit)
		_, stopSecond := table.Query(q, second.emit)
		table.Delete(Eq("instancename", "A"))
		put(t, table, `{"instancename":"C","pid":7}`, `{"instancename":"D"}`)
		stop()
		stopSecond()
		if len(table.views) != 0 {
			t.Fatal("a view is left")
		}
		for i, item := range first.items {
			if !json.Valid([]byte(item)) || second.items[i] != item {
				t.Fatalf("told %s and %s", item, second.items[i])
			}
		}
		if len(first.items) != len(second.items) {
			t.Fatalf("told %d and %d items", len(first.items), len(second.items))
		}
	})
}

// A record that was parsed is JSON with the schema's fields and is the same when
// it is parsed again.
func FuzzParseRecord(f *testing.F) {
	f.Fuzz(func(t *testing.T, text, partial []byte) {
		for _, s := range []*Schema{Needs, Services, NATs, EngagedModules} {
			r, err := s.Parse(text)
			if err != nil {
				continue
			}
			again, err := s.Parse(r.JSON())
			if err != nil || !again.Equal(r) || again.Key() != r.Key() {
				t.Fatalf("%s became %s, %v", r.JSON(), again.JSON(), err)
			}
			var members map[string]json.RawMessage
			if err := json.Unmarshal(r.JSON(), &members); err != nil || len(members) != len(s.Fields) {
				t.Fatalf("%s has %d members, %v", r.JSON(), len(members), err)
			}
			for name, value := range members {
				if !bytes.Equal(value, r.Get(name)) {
					t.Fatalf("%s: %s is %s", r.JSON(), name, r.Get(name))
				}
			}
			if changed, err := r.With(partial); err == nil && (changed.Key() != r.Key() || !json.Valid(changed.JSON())) {
				t.Fatalf("%s with %s became %s", r.JSON(), partial, changed.JSON())
			}
			ParseNeed(r)
			ParseService(r)
			ParseNAT(r)
		}
	})
}
