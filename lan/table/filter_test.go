package table

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/transcript"
)

func TestFilters(t *testing.T) {
	need := parse(t, Needs, `{"instancename":"Time","modulename":"allex_timeservice","tcpport":15000,"timeout":1.5e1,"ipaddress":"caf\u00e9","pid":null,
		"propertyhash":{"a":1,"b":{"c":"deep"}},"debug":true,"prof":5,"gate":" 7 "}`)
	service := parse(t, Services, `{"instancename":"Time","ipaddress":"10.1.2.3"}`)
	constrained := parse(t, Needs, `{"instancename":"Time","ipaddress":"10.0.0.0/8"}`)
	six := parse(t, Services, `{"instancename":"Time","ipaddress":"2001:db8::7"}`)
	several := parse(t, NATs, `{"iaddress":"192.168.1.1","iport":[100,200],"eaddress":"1.2.3.4","eport":0}`)
	one := parse(t, NATs, `{"iaddress":"192.168.1.1","iport":80,"eaddress":"1.2.3.4","eport":8080}`)
	field := func(op, field, value string) string {
		return `{"op":"` + op + `","field":"` + field + `","value":` + value + `}`
	}
	tests := []struct {
		record  Record
		yes, no []string
	}{
		{need, []string{
			``, `null`, `"*"`, `{}`, `{"op":5}`, `{"op":""}`, `{"op":"nosuch","field":"ipaddress"}`, `"unsatisfied"`, `7`, `[]`,
			field("eq", "instancename", `"Time"`), field("eq", "instancename", `"\u0054ime"`), field("eq", "ipaddress", `"café"`),
			field("eq", "tcpport", `15000`), field("eq", "tcpport", `15000.0`), field("eq", "timeout", `15`),
			field("eq", "pid", `null`), `{"op":"eq","field":"pid"}`, field("eq", "propertyhash", `{"a":1,"b":{"c":"deep"}}`),
			field("eq", "propertyhash.a", `1.0`), field("eq", "propertyhash.b.c", `"deep"`), field("contains", "propertyhash.b.c", `"ee"`),
			field("ne", "tcpport", `1`), field("ne", "nosuch", `1`), field("ne", "tcpport", `"15000"`),
			field("gt", "tcpport", `14999`), field("gte", "tcpport", `15000`), field("lt", "tcpport", `15000.5`), field("lte", "tcpport", `15000`),
			field("gt", "instancename", `"A"`), field("lte", "instancename", `"Time"`), field("gt", "tcpport", `"9"`),
			field("lt", "wsport", `1`), field("gte", "pid", `null`), field("gt", "debug", `0`), field("lt", "gate", `8`),
			field("in", "instancename", `["A","Time"]`), field("in", "tcpport", `[1,15000.0]`), field("nin", "instancename", `["A"]`), field("in", "pid", `[null]`),
			field("startswith", "modulename", `"allex_"`), field("endswith", "modulename", `"service"`), field("contains", "modulename", `"time"`), field("contains", "modulename", `""`),
			`{"op":"startswith","field":"modulename","value":"ALLEX","caseinsensitive":true}`, `{"op":"contains","field":"ipaddress","value":"FÉ","caseinsensitive":true}`,
			field("regex", "modulename", `"^allex_.*service$"`), field("regex", "modulename", `"time"`), field("regex", "modulename", `""`),
			`{"op":"regex","field":"modulename","value":"TIME","flags":"gi"}`, `{"op":"regex","field":"ipaddress","value":"f\\p{L}$","flags":"u"}`,
			`{"op":"exists","field":"tcpport"}`, `{"op":"notexists","field":"wsport"}`, `{"op":"notexists","field":"nosuch"}`,
			`{"op":"notexists","field":"propertyhash.x.y"}`, `{"op":"notexists","field":"instancename.length"}`, `{"op":"exists","field":"propertyhash.b"}`,
			field("bitmaskany", "prof", `4`), field("bitmaskany", "prof", `[1,2]`), field("bitmaskall", "prof", `[0,2,2]`), field("bitmaskall", "pid", `[]`), field("bitmaskany", "gate", `1`),
			`{"op":"near"}`, `{"op":"hash","d":{}}`, `{"op":"hash","d":{"instancename":"Time","tcpport":15000,"nosuch":1}}`,
			`{"op":"not","filter":` + field("eq", "instancename", `"A"`) + `}`,
			`{"op":"and","filters":[]}`, `{"op":"and","filters":["*",` + field("eq", "instancename", `"Time"`) + `]}`,
			`{"op":"or","filters":[` + field("eq", "instancename", `"A"`) + `,` + field("eq", "instancename", `"Time"`) + `]}`,
		}, []string{
			field("eq", "instancename", `"time"`), field("eq", "tcpport", `"15000"`), field("eq", "nosuch", `null`), field("eq", "pid", `0`),
			field("eq", ".instancename", `"Time"`), field("eq", "propertyhash.a", `"1"`),
			field("ne", "instancename", `"Time"`), field("ne", "timeout", `15`),
			field("gt", "tcpport", `15000`), field("lt", "tcpport", `"9"`), field("gt", "pid", `0`), field("gte", "propertyhash", `{}`), field("gte", "nosuch", `0`),
			field("lt", "instancename", `5`), field("gte", "tcpport", `"nonsense"`),
			field("in", "instancename", `[]`), field("nin", "tcpport", `[1,15000]`), field("in", "tcpport", `["15000"]`), field("in", "nosuch", `[null]`),
			field("startswith", "tcpport", `"1"`), field("endswith", "modulename", `"x"`), field("endswith", "instancename", `"xTime"`), field("contains", "modulename", `"TIME"`),
			field("regex", "tcpport", `"1"`), field("regex", "modulename", `"^time"`),
			`{"op":"exists","field":"pid"}`, `{"op":"notexists","field":"tcpport"}`, `{"op":"exists","field":"nosuch"}`, `{"op":"exists","field":"pid.x"}`,
			field("bitmaskany", "prof", `2`), field("bitmaskany", "prof", `0`), field("bitmaskall", "prof", `[0,1]`), field("bitmaskany", "instancename", `4294967295`),
			`{"op":"hash","d":{"instancename":"Time","tcpport":1}}`,
			`{"op":"not","filter":"*"}`, `{"op":"not","filter":null}`, `{"op":"or","filters":[]}`,
			`{"op":"and","filters":["*",` + field("eq", "instancename", `"A"`) + `]}`,
			`{"op":"and","filters":[{"op":"nosuch"}]}`, `{"op":"or","filters":[{"op":"nosuch"}]}`,
			field("cidr_match", "ipaddress", `"0.0.0.0/0"`), field("cidr_match", "pid", `["0.0.0.0/0"]`),
		}},
		{service, []string{
			field("cidr_match", "ipaddress", `["10.0.0.0/8"]`), field("cidr_match", "ipaddress", `["1.1.1.1","10.1.2.3"]`), field("cidr_match", "ipaddress", `"10.1.2.3"`),
			field("cidr_match", "ipaddress", `["10.1.0.0/8"]`), field("cidr_match", "ipaddress", `["10/8"]`), field("cidr_match", "ipaddress", `["0.0.0.0/0"]`),
			field("cidr_match", "ipaddress", `["::ffff:10.0.0.0/104"]`), field("cidr_match", "ipaddress", `["::ffff:10.1.2.3"]`), field("cidr_match", "ipaddress", `["10.1.2.2/31"]`),
		}, []string{
			field("cidr_match", "ipaddress", `[]`), field("cidr_match", "ipaddress", `["11.0.0.0/8"]`), field("cidr_match", "ipaddress", `["::/0"]`), field("cidr_match", "ipaddress", `["10.1.2.4/30"]`),
		}},
		{constrained, []string{field("cidr_match", "ipaddress", `"10.255.255.255"`)}, []string{field("cidr_match", "ipaddress", `"11.0.0.0"`)}},
		{six, []string{field("cidr_match", "ipaddress", `["2001:db8::/32"]`), field("cidr_match", "ipaddress", `"2001:db8:0::7"`)},
			[]string{field("cidr_match", "ipaddress", `["2001:db9::/32"]`), field("cidr_match", "ipaddress", `["0.0.0.0/0"]`)}},
		{several, []string{
			`{"op":"natlookup","iaddress":"192.168.1.1","iport":100}`, `{"op":"natlookup","iaddress":"192.168.1.1","iport":150.0}`, `{"op":"natlookup","iaddress":"192.168.1.1","iport":200}`,
		}, []string{
			`{"op":"natlookup","iaddress":"192.168.1.1","iport":201}`, `{"op":"natlookup","iaddress":"192.168.1.1","iport":99}`, `{"op":"natlookup","iaddress":"192.168.1.2","iport":150}`,
			`{"op":"natlookup","iaddress":"192.168.1.1"}`, `{"op":"natlookup"}`, `{"op":"natlookup","iaddress":"192.168.1.1","iport":"150"}`,
		}},
		{one, []string{`{"op":"natlookup","iaddress":"192.168.1.1","iport":80}`},
			[]string{`{"op":"natlookup","iaddress":"192.168.1.1","iport":81}`, `{"op":"natlookup","iaddress":"192.168.1.1","iport":"80"}`}},
	}
	for _, test := range tests {
		for want, texts := range map[bool][]string{true: test.yes, false: test.no} {
			for _, text := range texts {
				f, err := ParseFilter(test.record.schema, json.RawMessage(text))
				if err != nil {
					t.Errorf("%s: %v", text, err)
				} else if got := f.Match(test.record); got != want {
					t.Errorf("%s of %s: %v", text, test.record.JSON(), got)
				}
			}
		}
	}
}

func TestParseFilterRefuses(t *testing.T) {
	for _, text := range []string{
		`{`, `{"op":"eq"}`, `{"op":"eq","field":5}`, `{"op":"in","field":"pid","value":1}`, `{"op":"and"}`, `{"op":"exists"}`,
		`{"op":"or","filters":{}}`, `{"op":"not","filter":{"op":"eq"}}`, `{"op":"not"}`, `{"op":"not","filter":{"op":"nosuch"}}`, `[`, `"x`, `"`, `nonsense`,
		`{"op":"hash"}`, `{"op":"hash","d":5}`, `{"op":"contains","field":"pid","value":5}`,
		`{"op":"regex","field":"pid","value":"("}`, `{"op":"regex","field":"pid","value":5}`, `{"op":"regex","field":"pid","value":"a","flags":"x"}`,
		`{"op":"regex","field":"pid","value":"a","flags":5}`, `{"op":"regex","field":"pid","value":"(?=a)"}`,
		`{"op":"bitmaskany","field":"pid"}`, `{"op":"bitmaskall","field":"pid","value":[32]}`, `{"op":"bitmaskall","field":"pid","value":[0.5]}`,
		`{"op":"cidr_match","field":"pid"}`, `{"op":"cidr_match","field":"pid","value":"10.0.0.0/33"}`, `{"op":"cidr_match","field":"pid","value":["10.0.0.0/x"]}`,
		`{"op":"cidr_match","field":"pid","value":"1.2.3.4.5"}`, `{"op":"cidr_match","field":"pid","value":["::ffff:1.2.3.4/95"]}`,
	} {
		if _, err := ParseFilter(Needs, json.RawMessage(text)); err == nil {
			t.Errorf("%s is a filter", text)
		}
	}
}

// What is a little too much is refused with the limit in the error; what is just
// not too much is taken.
func TestFiltersAreBounded(t *testing.T) {
	repeat := func(n int, one string) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	tests := []struct {
		limit        int
		fits, tooBig string
	}{
		{maxParts, `{"op":"and","filters":[` + repeat(maxParts-1, `"*"`) + `]}`, `{"op":"and","filters":[` + repeat(maxParts, `"*"`) + `]}`},
		{maxParts, strings.Repeat(`{"op":"not","filter":`, maxParts-1) + `{}` + strings.Repeat(`}`, maxParts-1), ``},
		{maxValues, `{"op":"in","field":"pid","value":[` + repeat(maxValues, `7`) + `]}`, `{"op":"nin","field":"pid","value":[` + repeat(maxValues+1, `7`) + `]}`},
		{maxValues, ``, `{"op":"cidr_match","field":"pid","value":[` + repeat(maxValues+1, `"::1"`) + `]}`},
		{maxValues, ``, `{"op":"hash","d":{` + repeat(maxValues+1, `"pid":7`) + `}}`},
		{maxPatternSize, `{"op":"regex","field":"pid","value":"` + strings.Repeat(`a`, maxPatternSize-1) + `"}`, `{"op":"regex","field":"pid","value":"` + strings.Repeat(`a`, maxPatternSize+1) + `"}`},
		{maxPatternSize, `{"op":"regex","field":"pid","value":"a{200}"}`, `{"op":"regex","field":"pid","value":"(?:a{10}){100}"}`},
		{maxPatternSize, ``, `{"op":"or","filters":[` + repeat(3, `{"op":"regex","field":"pid","value":"a{100}"}`) + `]}`},
		{maxFilterBytes, `{"x":"` + strings.Repeat(`x`, maxFilterBytes-8) + `"}`, `{"x":"` + strings.Repeat(`x`, maxFilterBytes-7) + `"}`},
	}
	for _, test := range tests {
		if test.fits != "" {
			if _, err := ParseFilter(Needs, json.RawMessage(test.fits)); err != nil {
				t.Errorf("%.100s: %v", test.fits, err)
			}
		}
		if test.tooBig == "" {
			continue
		}
		if _, err := ParseFilter(Needs, json.RawMessage(test.tooBig)); err == nil || !strings.Contains(err.Error(), strconv.Itoa(test.limit)) {
			t.Errorf("%.100s: error %v, the limit is %d", test.tooBig, err, test.limit)
		}
	}
	f, err := ParseFilter(Needs, json.RawMessage(`{"op":"regex","field":"modulename","value":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]bool{maxMatchedText: true, maxMatchedText + 1: false} {
		if got := f.Match(parse(t, Needs, `{"instancename":"A","modulename":"`+strings.Repeat("x", n)+`"}`)); got != want {
			t.Errorf("a text of %d bytes: %v", n, got)
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
// again, by every table, and costs no more than its limits allow.
func FuzzParseFilter(f *testing.F) {
	for _, item := range notifications(f, "client-edge-cases.log") {
		var parts []json.RawMessage
		if err := json.Unmarshal(item, &parts); err == nil && len(parts) > 1 {
			f.Add([]byte(parts[1]))
		}
	}
	records := []Record{
		parse(f, Needs, `{"instancename":"Probe","modulename":"m","pid":7,"propertyhash":{"a":{"b":"7"}}}`),
		parse(f, Needs, `{"instancename":"x","ipaddress":"127.0.0.1","tcpport":1,"pid":1}`),
		parse(f, Services, `{"instancename":"x","ipaddress":"2001:db8::1"}`),
		parse(f, NATs, `{"iaddress":"192.168.1.1","iport":[1,2],"eaddress":"1.2.3.4","eport":0}`),
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, r := range records {
			filter, err := ParseFilter(r.schema, text)
			if err != nil {
				continue
			}
			written, err := filter.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseFilter(r.schema, written)
			if err != nil {
				t.Fatalf("%q was written as %q: %v", text, written, err)
			}
			if filter.Match(r) != again.Match(r) {
				t.Fatalf("%q was written as %q, which chooses otherwise", text, written)
			}
			if key, ok := filter.key(r.schema); ok && filter.Match(r) != (key == r.key) {
				t.Fatalf("%q is said to choose %q, not %q", text, key, r.key)
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
