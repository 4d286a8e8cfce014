package jsonfile

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample has every kind of field that Decode knows.
type sample struct {
	Address string `json:"lanmanageraddress"`
	Port    *int   `json:"lanmanagerport"`
	Size    int    `json:"size"`
	Start   struct {
		TCP  int `json:"tcp"`
		HTTP int `json:"http"`
	} `json:"portrangestart"`
	Grace   Duration          `json:"grace"`
	Stop    bool              `json:"stop"`
	Command []string          `json:"command"`
	Env     map[string]string `json:"environment"`
	Raw     json.RawMessage   `json:"raw"`
	hidden  int
}

func TestDecode(t *testing.T) {
	got := sample{Address: "stays", Size: 5, Command: []string{"is", "replaced"}}
	err := Decode("f.json", []byte(`{
		"lanmanagerport": 23552, "portrangestart": {"http": -1}, "grace": "1m30s", "stop": true,
		"command": ["a\u0000b", "${x}"], "environment": {"A b": "c"}, "raw": {"x": [1, null]}
	}`), &got)
	if err != nil {
		t.Fatal(err)
	}
	want := sample{Address: "stays", Size: 5, Port: new(23552), Grace: Duration(90 * time.Second), Stop: true,
		Command: []string{"a\x00b", "${x}"}, Env: map[string]string{"A b": "c"}, Raw: json.RawMessage(`{"x": [1, null]}`)}
	want.Start.HTTP = -1
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(sample{})); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeSlice(t *testing.T) {
	var got []sample
	if err := Decode("f.json", []byte(` [{"size": 1}, {}] `), &got); err != nil || len(got) != 2 || got[0].Size != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}

const allowed = "Allowed: lanmanageraddress, lanmanagerport, size, portrangestart, grace, stop, command, environment, raw"

func TestMistakes(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"typographic quotes", "{\n  \"size\": 1,\n  “stop”: true}", "f.json:3:3: broken JSON: invalid character '“' looking for beginning of object key string"},
		{"comma too many", "{\n  \"size\": 1,\n}", "f.json:3:1: broken JSON: invalid character '}' looking for beginning of object key string"},
		{"no comma", "{\"size\": 1\n \"stop\": true}", "f.json:2:2: broken JSON: invalid character '\"' after object key:value pair"},
		{"cut off", "{\n  \"size\": 1", "f.json:2:11: broken JSON: unexpected end of JSON input"},
		{"more behind it", "{}\n{}", "f.json:2:1: broken JSON: invalid character '{' after top-level value"},
		{"comment", "// hello\n{}", "f.json:1:1: broken JSON: invalid character '/' looking for beginning of value"},
		{"empty", " \n", "f.json:1:1: the file is empty, wanted a JSON document"},
		{"byte order mark", "\ufeff{}", "f.json:1:1: the file begins with a byte order mark; save it without one"},
		{"not UTF-8", "{\"\ufffd\": 1,\n\"\xff\": 1}", "f.json:2:2: broken JSON: not UTF-8"},
		{"deep", "{\"raw\":\n" + strings.Repeat("[", 101) + strings.Repeat("]", 101) + "}",
			"f.json:2:100: nested deeper than 100"},
		{"brackets in a string", `{"lanmanageraddress": "` + strings.Repeat(`[\"`, 101) + `"}`, ""},
		{"not an object", "[1]", "f.json:1:1: found an array, wanted an object"},
		{"null", "null", "f.json:1:1: found null, wanted an object"},

		{"unknown key", `{"lanmangeradress": "x"}`,
			`f.json:1:2: lanmangeradress: unknown key; did you mean "lanmanageraddress"? ` + allowed},
		{"case matters", `{"Size": 1}`, `f.json:1:2: Size: unknown key; did you mean "size"? ` + allowed},
		{"separators", `{"lan_manager-port": 1}`, `f.json:1:2: lan_manager-port: unknown key; did you mean "lanmanagerport"? ` + allowed},
		{"unlike any", `{"metricsaddress": 1}`, `f.json:1:2: metricsaddress: unknown key. ` + allowed},
		{"no name of Go", `{"hidden": 1}`, `f.json:1:2: hidden: unknown key. ` + allowed},
		{"long key", `{"` + strings.Repeat("s", 101) + `": 1}`, `f.json:1:2: ` + strings.Repeat("s", 101) + `: unknown key. ` + allowed},
		{"odd key", `{"a b.c[": 1}`, `f.json:1:2: ["a b.c["]: unknown key. ` + allowed},
		{"empty key", `{"": 1}`, `f.json:1:2: [""]: unknown key. ` + allowed},
		{"inner key", `{"portrangestart": {"htttp": 1}}`,
			`f.json:1:21: portrangestart.htttp: unknown key; did you mean "http"? Allowed: tcp, http`},
		{"duplicate key", "{\"size\": 1,\n\n \"size\": 1}", "f.json:3:2: size: duplicate key; the first is in line 1"},
		{"duplicate key in a map", `{"environment": {"A": "", "A": ""}}`,
			"f.json:1:27: environment.A: duplicate key; the first is in line 1"},
		{"duplicate key in raw JSON", `{"raw": [{"\u0041": 1, "A": 1}]}`,
			"f.json:1:24: raw[0].A: duplicate key; the first is in line 1"},

		{"number for a string", `{"lanmanageraddress": 5}`, "f.json:1:23: lanmanageraddress: found the number 5, wanted a string"},
		{"string for a number", `{"size": "5"}`, `f.json:1:10: size: found the string "5", wanted a whole number`},
		{"fraction", `{"size": 1.5}`, `f.json:1:10: size: found the number 1.5, wanted a whole number`},
		{"too large", `{"size": 9223372036854775808}`,
			`f.json:1:10: size: found the number 9223372036854775808, wanted a whole number`},
		{"null for a number", `{"size": null}`, `f.json:1:10: size: found null, wanted a whole number`},
		{"null for a pointer", `{"lanmanagerport": null}`, ""},
		{"bad pointer", `{"lanmanagerport": true}`, "f.json:1:20: lanmanagerport: found true, wanted a whole number"},
		{"number for a bool", `{"stop": 0}`, "f.json:1:10: stop: found the number 0, wanted true or false"},
		{"object for an array", `{"command": {}}`, "f.json:1:13: command: found an object, wanted an array"},
		{"array for an object", `{"portrangestart": []}`, "f.json:1:20: portrangestart: found an array, wanted an object"},
		{"string for a map", `{"environment": "A=b"}`, `f.json:1:17: environment: found the string "A=b", wanted an object`},
		{"map value", `{"environment": {"A": 1}}`, `f.json:1:23: environment.A: found the number 1, wanted a string`},
		{"element", `{"command": ["a", 1]}`, `f.json:1:19: command[1]: found the number 1, wanted a string`},
		{"long string", `{"size": "` + strings.Repeat("ä", 50) + `"}`,
			`f.json:1:10: size: found the string "` + strings.Repeat("ä", 40) + `"..., wanted a whole number`},
		{"span without unit", `{"grace": "10"}`,
			`f.json:1:11: grace: found "10", wanted a time span such as "10s" or "1m30s"`},
		{"span as a number", `{"grace": 10}`, `f.json:1:11: grace: found 10, wanted a time span such as "10s" or "1m30s"`},

		{"several, in the order of the file", "{\n\"size\": \"a\",\n\"nosuch\": 1,\n\"command\": [1, \"b\", 2]}",
			"f.json:2:9: size: found the string \"a\", wanted a whole number\n" +
				"f.json:3:1: nosuch: unknown key. " + allowed + "\n" +
				"f.json:4:13: command[0]: found the number 1, wanted a string\n" +
				"f.json:4:21: command[2]: found the number 2, wanted a string"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var v sample
			got := ""
			if err := Decode("f.json", []byte(tt.text), &v); err != nil {
				got = err.Error()
				if _, ok := errors.AsType[*Error](err); !ok {
					t.Errorf("the error is a %T", err)
				}
			}
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// Mistakes of meaning come with those of form, in the order of the file, and do
// not repeat them.
func TestAdd(t *testing.T) {
	var v sample
	doc := Read("f.json", []byte(`{
  "command": [1],
  "sice": 1,
  "portrangestart": {"tcp": 70000},
  "environment": "x"
}`), &v)
	doc.Add("portrangestart.tcp", "too large")
	doc.Add("portrangestart.http", "missing")
	doc.Add("raw", "missing")
	doc.Add("", "the whole is wrong")
	for _, spoiled := range []string{"command", "command[0]", "environment.A", "size"} {
		doc.Add(spoiled, "repeats")
	}
	doc.Add("commander", "only looks alike")
	want := []Mistake{
		{"raw", "missing", 1, 1},
		{"", "the whole is wrong", 1, 1},
		{"commander", "only looks alike", 1, 1},
		{"command[0]", "found the number 1, wanted a string", 2, 15},
		{"sice", `unknown key; did you mean "size"? ` + allowed, 3, 3},
		{"portrangestart.http", "missing", 4, 21},
		{"portrangestart.tcp", "too large", 4, 29},
		{"environment", `found the string "x", wanted an object`, 5, 18},
	}
	if diff := cmp.Diff(&Error{"f.json", want}, doc.Err()); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{"{", "[]"} {
		doc := Read("f.json", []byte(text), &v)
		doc.Add("size", "missing")
		if e, ok := errors.AsType[*Error](doc.Err()); !ok || len(e.Mistakes) != 1 {
			t.Errorf("%s: got %v, want one mistake", text, doc.Err())
		}
	}
}

func TestErrorWithoutPlace(t *testing.T) {
	err := &Error{"f.json", []Mistake{{Path: "a", Message: "b"}, {Message: "c"}}}
	if got, want := err.Error(), "f.json: a: b\nf.json: c"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{
		`0`: 0, `1024`: 1024, `"1024"`: 1024, `"64KiB"`: 64 << 10, `"1MiB"`: 1 << 20, `"3GiB"`: 3 << 30, `"2TiB"`: 2 << 40,
		`-1`: -1, `1.5`: -1, `""`: -1, `"KiB"`: -1, `"1KB"`: -1, `"99999999999TiB"`: -1, `"8388608TiB"`: -1, `null`: -1, `{}`: -1,
	} {
		got := Size(-1)
		if err := json.Unmarshal([]byte(text), &got); got != want || (err == nil) != (want >= 0) {
			t.Errorf("%s: got %d, %v, want %d", text, got, err, want)
		}
	}
}

func TestDurationRoundTrip(t *testing.T) {
	data, err := json.Marshal(Duration(90 * time.Second))
	if err != nil || string(data) != `"1m30s"` {
		t.Errorf("got %s, %v", data, err)
	}
}

// FuzzDecode: whatever the text, there is a value or an *Error whose places lie
// in the text; and what encoding/json takes strictly differs only where this
// package is stricter.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{`{}`, `{"size":1,"size":2}`, `{"command":["a"],"raw":[[{"a":null}]]}`, "{\"a\xff\"}",
		`{"portrangestart":{"tcp":1e3}}`, `[{"grace":"1s"}]`, "{\n\"x", `{"environment":{"a.b":1,"[":""}}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v sample
		err := Decode("f.json", data, &v)
		if err == nil {
			decoder := json.NewDecoder(strings.NewReader(string(data)))
			decoder.DisallowUnknownFields()
			var other sample
			if err := decoder.Decode(&other); err != nil {
				t.Fatalf("accepted what encoding/json refuses: %s", err)
			}
			if diff := cmp.Diff(other, v, cmp.AllowUnexported(sample{})); diff != "" {
				t.Fatal(diff)
			}
			return
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || len(e.Mistakes) == 0 {
			t.Fatalf("got %T %v", err, err)
		}
		lines := strings.Split(string(data), "\n")
		for _, m := range e.Mistakes {
			if m.Line < 1 || m.Line > len(lines) || m.Column < 1 || m.Column > len(lines[m.Line-1])+1 {
				t.Errorf("%d:%d lies outside of the text", m.Line, m.Column)
			}
		}
	})
}
