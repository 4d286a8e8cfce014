package table

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/transcript"
)

func TestFilters(t *testing.T) {
	r := parse(t, Needs, `{"instancename":"Time","modulename":"allex_timeservice","tcpport":15000,"timeout":1.5e1,"ipaddress":"caf\u00e9","propertyhash":{"a":1}}`)
	field := func(op, field, value string) string {
		return `{"op":"` + op + `","field":"` + field + `","value":` + value + `}`
	}
	yes := []string{
		``, `null`, `"*"`, `{}`, `{"op":"cidr_match","field":"ipaddress"}`, `{"op":5}`, `"unsatisfied"`, `7`,
		field("eq", "instancename", `"Time"`), field("eq", "instancename", `"\u0054ime"`), field("eq", "ipaddress", `"café"`),
		field("eq", "tcpport", `15000`), field("eq", "tcpport", `15000.0`), field("eq", "timeout", `15`),
		field("eq", "pid", `null`), `{"op":"eq","field":"pid"}`, field("eq", "propertyhash", `{"a":1}`),
		field("ne", "tcpport", `1`), field("ne", "nosuch", `1`),
		field("gt", "tcpport", `14999`), field("gte", "tcpport", `15000`), field("lt", "tcpport", `15000.5`), field("lte", "tcpport", `15000`),
		field("gt", "instancename", `"A"`), field("lte", "instancename", `"Time"`),
		field("in", "instancename", `["A","Time"]`), field("nin", "instancename", `["A"]`),
		field("startswith", "modulename", `"allex_"`), field("endswith", "modulename", `"service"`), field("contains", "modulename", `"time"`),
		`{"op":"exists","field":"tcpport"}`, `{"op":"notexists","field":"wsport"}`, `{"op":"notexists","field":"nosuch"}`,
		`{"op":"not","filter":` + field("eq", "instancename", `"A"`) + `}`,
		`{"op":"and","filters":[]}`, `{"op":"and","filters":["*",` + field("eq", "instancename", `"Time"`) + `]}`,
		`{"op":"or","filters":[` + field("eq", "instancename", `"A"`) + `,` + field("eq", "instancename", `"Time"`) + `]}`,
	}
	no := []string{
		field("eq", "instancename", `"time"`), field("eq", "tcpport", `"15000"`), field("eq", "nosuch", `null`), field("eq", "pid", `0`),
		field("ne", "instancename", `"Time"`),
		field("gt", "tcpport", `15000`), field("lt", "tcpport", `"9"`), field("gt", "pid", `0`), field("gte", "propertyhash", `{}`),
		field("in", "instancename", `[]`), field("nin", "tcpport", `[1,15000]`),
		field("startswith", "tcpport", `"1"`), field("contains", "modulename", `5`), field("endswith", "modulename", `"x"`),
		`{"op":"exists","field":"pid"}`, `{"op":"notexists","field":"tcpport"}`, `{"op":"exists","field":"nosuch"}`,
		`{"op":"not","filter":"*"}`, `{"op":"or","filters":[]}`,
		`{"op":"and","filters":["*",` + field("eq", "instancename", `"A"`) + `]}`,
	}
	for want, texts := range map[bool][]string{true: yes, false: no} {
		for _, text := range texts {
			f, err := ParseFilter(Needs, json.RawMessage(text))
			if err != nil {
				t.Errorf("%s: %v", text, err)
			} else if got := f.Match(r); got != want {
				t.Errorf("%s: %v", text, got)
			}
		}
	}
	for _, text := range []string{
		`{`, `{"op":"eq"}`, `{"op":"eq","field":5}`, `{"op":"in","field":"pid","value":1}`, `{"op":"and"}`,
		`{"op":"or","filters":{}}`, `{"op":"not","filter":{"op":"eq"}}`, `[`, `"x`, `"`, `nonsense`,
	} {
		if _, err := ParseFilter(Needs, json.RawMessage(text)); err == nil {
			t.Errorf("%s is a filter", text)
		}
	}
}

func TestUnsatisfiedIsForNeeds(t *testing.T) {
	f, err := ParseFilter(Services, json.RawMessage(`"unsatisfied"`))
	if err != nil || !f.Match(parse(t, Services, `{"instancename":"A"}`)) {
		t.Errorf("error %v", err)
	}
}

func TestFilterText(t *testing.T) {
	for _, text := range []string{`null`, `{"op":"eq","field":"instancename","value":"X"}`, `"unsatisfied"`} {
		f, err := ParseFilter(Needs, json.RawMessage(text))
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(f)
		if err != nil || string(got) != text {
			t.Errorf("%s became %s, %v", text, got, err)
		}
	}
	got, err := json.Marshal(Eq("ipaddress", "127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"op":"eq","field":"ipaddress","value":"127.0.0.1"}`, string(got)); diff != "" {
		t.Error(diff)
	}
	if text, _ := json.Marshal(Eq("x", func() {})); string(text) != `{"op":"eq","field":"x","value":null}` {
		t.Errorf("got %s", text)
	}
}

// A filter that was parsed is understood the same when it is written and parsed
// again.
func FuzzParseFilter(f *testing.F) {
	for _, item := range notifications(f, "client-edge-cases.log") {
		var parts []json.RawMessage
		if err := json.Unmarshal(item, &parts); err == nil && len(parts) > 1 {
			f.Add([]byte(parts[1]))
		}
	}
	f.Add([]byte(`{"op":"and","filters":[{"op":"not","filter":{"op":"in","field":"pid","value":[1]}},"unsatisfied"]}`))
	f.Add([]byte(`"`))
	f.Add([]byte(`{"op":"lte","field":"modulename","value":"x"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		filter, err := ParseFilter(Needs, text)
		if err != nil {
			return
		}
		written, err := filter.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseFilter(Needs, written)
		if err != nil {
			t.Fatalf("%q was written as %q: %v", text, written, err)
		}
		for _, r := range []Record{
			parse(t, Needs, `{"instancename":"Probe","modulename":"m","pid":7}`),
			parse(t, Needs, `{"instancename":"x","ipaddress":"127.0.0.1","tcpport":1,"pid":1}`),
		} {
			if filter.Match(r) != again.Match(r) {
				t.Fatalf("%q was written as %q, which chooses otherwise", text, written)
			}
		}
	})
}

// notifications are the items of all queries of a transcript.
func notifications(t testing.TB, name string) []json.RawMessage {
	t.Helper()
	lines, err := transcript.Read("../testdata/transcripts/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var items []json.RawMessage
	for _, line := range lines {
		if item, ok := notification(line); ok {
			items = append(items, item)
		}
	}
	return items
}

func notification(line transcript.Line) (json.RawMessage, bool) {
	var parts []json.RawMessage
	if line.Kind != transcript.FromServer || json.Unmarshal([]byte(line.Text), &parts) != nil ||
		len(parts) != 3 || string(parts[0]) != `"n"` {
		return nil, false
	}
	return parts[2], true
}
