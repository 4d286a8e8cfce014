package table

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// large is a table of n needs that 500 continuous queries follow; # in the query
// is the number of each.
func large(b *testing.B, n int, text string) *Table {
	b.Helper()
	t := New(Needs, counter())
	for i := range n {
		put(b, t, needText(i))
	}
	for i := range 500 {
		t.Query(query(b, Needs, strings.ReplaceAll(text, "#", strconv.Itoa(i))), func(json.RawMessage) {})
	}
	return t
}

func needText(i int) string {
	return fmt.Sprintf(`{"instancename":"Need%d","modulename":"allex_timeservice","ipaddress":"10.0.0.%d","strategies":{"ip":[{"ip":"127.0.0.1/32","role":"user"}]}}`, i, i%250)
}

func sizes(b *testing.B, run func(b *testing.B, n int)) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) { run(b, n) })
	}
}

// One need that opens and one that closes, told to everybody: what each kind of
// query costs.
func BenchmarkCreateAndDelete(b *testing.B) {
	for name, text := range map[string]string{
		"all":         `{"continuous":true}`,
		"unsatisfied": `{"continuous":true,"filter":"unsatisfied"}`,
		"eq":          `{"continuous":true,"filter":{"op":"eq","field":"instancename","value":"Need#"}}`,
		"fields":      `{"continuous":true,"visiblefields":["instancename","pid"]}`,
		"window":      `{"continuous":true,"offset":#,"limit":10}`,
	} {
		b.Run(name, func(b *testing.B) {
			sizes(b, func(b *testing.B, n int) {
				t := large(b, n, text)
				r := parse(b, Needs, needText(n))
				filter := Eq("instancename", r.Key())
				b.ReportAllocs()
				for b.Loop() {
					if err := t.Create(r); err != nil || t.Delete(filter) != 1 {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func BenchmarkUpdate(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		t := large(b, n, `{"continuous":true}`)
		filter := Eq("instancename", "Need7")
		partials := []json.RawMessage{[]byte(`{"pid":7}`), []byte(`{"pid":8}`)}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := t.Update(filter, partials[i%2]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A table that fills and is emptied, while everybody listens: per record.
func BenchmarkFillAndEmpty(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		t := large(b, 0, `{"continuous":true}`)
		records := make([]Record, n)
		for i := range records {
			records[i] = parse(b, Needs, needText(i))
		}
		b.ReportAllocs()
		for b.Loop() {
			for _, r := range records {
				if err := t.Create(r); err != nil {
					b.Fatal(err)
				}
			}
			for _, r := range records {
				t.Delete(Eq("instancename", r.Key()))
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
	})
}

func BenchmarkQuery(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		t := large(b, n, `{"continuous":true}`)
		b.ReportAllocs()
		for b.Loop() {
			_, stop := t.Query(Query{Continuous: true}, func(json.RawMessage) {})
			stop()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
	})
}

// The dearest filters that are allowed, against an ordinary record.
func BenchmarkHostileFilter(b *testing.B) {
	r := parse(b, Needs, needText(7))
	list := func(n int, one string) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	for name, text := range map[string]string{
		"pattern":  `{"op":"regex","field":"modulename","value":"^(?:.*x?){40}y$"}`,
		"values":   `{"op":"nin","field":"modulename","value":[` + list(maxValues, `"x"`) + `]}`,
		"networks": `{"op":"cidr_match","field":"ipaddress","value":[` + list(maxValues, `"11.0.0.0/8"`) + `]}`,
		"parts":    `{"op":"and","filters":[` + list(maxParts-1, `{"op":"startswith","field":"modulename","value":"A","caseinsensitive":true}`) + `]}`,
		"paths":    `{"op":"or","filters":[` + list(maxParts-1, `{"op":"exists","field":"strategies.ip.x"}`) + `]}`,
	} {
		b.Run(name, func(b *testing.B) {
			f, err := ParseFilter(Needs, json.RawMessage(text))
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				f.Match(r)
			}
		})
		b.Run("parse "+name, func(b *testing.B) {
			for b.Loop() {
				if _, err := ParseFilter(Needs, json.RawMessage(text)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
