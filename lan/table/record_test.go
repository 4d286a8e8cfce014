package table

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parse(t testing.TB, s *Schema, text string) Record {
	t.Helper()
	r, err := s.Parse(json.RawMessage(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return r
}

func TestParseFillsAndDrops(t *testing.T) {
	tests := []struct {
		schema     *Schema
		text, want string
	}{
		{Needs, `{"instancename":"A","modulename":"m","extra":{"x":1}}`,
			`{"instancename":"A","modulename":"m","propertyhash":{},"strategies":{},"closed":null,"ipaddress":null,"tcpport":null,"tcpoptions":null,"httpport":null,"httpoptions":null,"wsport":null,"wsoptions":null,"pid":null,"debug":null,"debug_brk":null,"prof":null,"gate":null,"timeout":60}`},
		{Needs, ` { "timeout" : null , "instancename" : "A" , "propertyhash" : { "a" : 1 } } `,
			`{"instancename":"A","modulename":null,"propertyhash":{ "a" : 1 },"strategies":{},"closed":null,"ipaddress":null,"tcpport":null,"tcpoptions":null,"httpport":null,"httpoptions":null,"wsport":null,"wsoptions":null,"pid":null,"debug":null,"debug_brk":null,"prof":null,"gate":null,"timeout":null}`},
		// As the real LAN manager answered services.create (client-edge-cases.log, q37).
		{Services, `{"instancename":"hackserv","modulename":"m","ipaddress":"9.9.9.9","created":1795354463398}`,
			`{"instancename":"hackserv","modulename":"m","propertyhash":null,"strategies":{},"ipaddress":"9.9.9.9","tcpport":0,"tcpoptions":null,"httpport":0,"httpoptions":null,"wsport":0,"wsoptions":null,"debug":null,"debug_brk":null,"prof":null,"gate":null,"created":1795354463398}`},
		{NATs, `{"iaddress":"192.168.1.1","iport":12345,"eaddress":"1.2.3.4","eport":80}`,
			`{"iaddress":"192.168.1.1","iport":12345,"eaddress":"1.2.3.4","eport":80}`},
		{EngagedModules, `{"modulename":"allexcore"}`, `{"modulename":"allexcore"}`},
	}
	for _, test := range tests {
		r := parse(t, test.schema, test.text)
		if diff := cmp.Diff(test.want, string(r.JSON())); diff != "" {
			t.Errorf("%s: %s", test.text, diff)
		}
		text, err := json.Marshal(r)
		if err != nil || !json.Valid(text) {
			t.Errorf("%s: marshalled as %s, %v", test.text, text, err)
		}
		if again := parse(t, test.schema, string(r.JSON())); !again.Equal(r) {
			t.Errorf("%s is not itself", r.JSON())
		}
		for _, field := range test.schema.Fields {
			if value := r.Get(field.Name); !json.Valid(value) {
				t.Errorf("%s of %s: %s", field.Name, test.schema.Name, value)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{`{}`, `{"instancename":null}`, `{"instancename":5}`, `{"instancename":""}`} {
		if _, err := Needs.Parse(json.RawMessage(text)); !errors.Is(err, ErrNoKey) {
			t.Errorf("%s: error %v", text, err)
		}
	}
	for _, text := range []string{``, `null`, `[]`, `{"instancename":"A"`, `"A"`} {
		if _, err := Needs.Parse(json.RawMessage(text)); err == nil {
			t.Errorf("%s became a need", text)
		}
	}
	if _, err := NATs.Parse(json.RawMessage(`{"iaddress":"1.1.1.1"}`)); !errors.Is(err, ErrNoKey) {
		t.Errorf("half a key: %v", err)
	}
}

func TestRecordOwnsItsMemory(t *testing.T) {
	text := []byte(`{"instancename":"A","modulename":"m"}`)
	r := parse(t, Needs, string(text))
	for i := range text {
		text[i] = 'x'
	}
	if r.Key() != "A" || r.Text("modulename") != "m" {
		t.Errorf("it became %s", r.JSON())
	}
}

func TestKeys(t *testing.T) {
	if key := parse(t, Needs, `{"instancename":"\u0041\n"}`).Key(); key != "A\n" {
		t.Errorf("key %q", key)
	}
	if key := parse(t, NATs, `{"iaddress":"1.1.1.1","iport":[1,2]}`).Key(); key != `["1.1.1.1",[1,2]]` {
		t.Errorf("key %q", key)
	}
}

func TestWith(t *testing.T) {
	r := parse(t, EngagedModules, `{"modulename":"m"}`)
	if got, err := r.With(json.RawMessage(`{"upsert":true}`)); err != nil || !got.Equal(r) {
		t.Errorf("an unknown field made %s, %v", got.JSON(), err)
	}
	r = parse(t, NATs, `{"iaddress":"1.1.1.1","iport":1,"eport":2}`)
	got, err := r.With(json.RawMessage(`{"iaddress":"2.2.2.2","eport":3,"eaddress":"3.3.3.3"}`))
	if err != nil || string(got.JSON()) != `{"iaddress":"1.1.1.1","iport":1,"eaddress":"3.3.3.3","eport":3}` {
		t.Errorf("got %s, %v", got.JSON(), err)
	}
	if r.Int("eport") != 2 {
		t.Error("the old record changed")
	}
	if _, err := r.With(json.RawMessage(`5`)); err == nil {
		t.Error("a number is no change")
	}
}

func TestNoRecord(t *testing.T) {
	var r Record
	if !r.IsZero() || r.Get("x") != nil || r.Text("x") != "" || r.Int("x") != 0 || r.Key() != "" {
		t.Error("no record has something")
	}
	if text, err := json.Marshal(r); err != nil || string(text) != "null" {
		t.Errorf("%s, %v", text, err)
	}
	if parse(t, EngagedModules, `{"modulename":"m"}`).Get("nosuch") != nil {
		t.Error("there is a field that is not")
	}
}

func TestViews(t *testing.T) {
	need := ParseNeed(parse(t, Needs, `{"instancename":"Fixed","modulename":"m","propertyhash":{"a":1},"ipaddress":"10.0.0.0/8","tcpport":15777,"gate":{"ws":{}},"timeout":7,"closed":true}`))
	want := Need{
		InstanceName: "Fixed", ModuleName: "m",
		PropertyHash: json.RawMessage(`{"a":1}`), Strategies: json.RawMessage(`{}`),
		IPAddress: "10.0.0.0/8", Ports: Ports{TCP: 15777}, Timeout: 7, Closed: true,
		Rest: map[string]json.RawMessage{"gate": json.RawMessage(`{"ws":{}}`)},
	}
	if diff := cmp.Diff(want, need); diff != "" {
		t.Error(diff)
	}
	text, err := json.Marshal(need)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"closed":true,"gate":{"ws":{}},"instancename":"Fixed","ipaddress":"10.0.0.0/8","modulename":"m","propertyhash":{"a":1},"strategies":{},"tcpport":15777,"timeout":7}`, string(text)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(need, ParseNeed(parse(t, Needs, string(text)))); diff != "" {
		t.Error("there and back: ", diff)
	}

	service := ParseService(parse(t, Services, `{"instancename":"A","ipaddress":"127.0.0.1","httpport":16000}`))
	if diff := cmp.Diff(Service{InstanceName: "A", Strategies: json.RawMessage(`{}`), IPAddress: "127.0.0.1", Ports: Ports{HTTP: 16000}}, service); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]NAT{
		`{"iaddress":"1.1.1.1","iport":12345,"eaddress":"1.2.3.4","eport":80}`: {"1.1.1.1", PortRange{12345, 12345}, "1.2.3.4", 80},
		`{"iaddress":"1.1.1.1","iport":[1,9],"eaddress":"1.2.3.4","eport":0}`:  {"1.1.1.1", PortRange{1, 9}, "1.2.3.4", 0},
		`{"iaddress":"1.1.1.1","iport":[1],"eaddress":5}`:                      {IAddress: "1.1.1.1"},
	} {
		if diff := cmp.Diff(want, ParseNAT(parse(t, NATs, text))); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

// Odd values are as good as none.
func TestViewsOfOddRecords(t *testing.T) {
	need := ParseNeed(parse(t, Needs, `{"instancename":"A","modulename":5,"ipaddress":[],"tcpport":"15998","httpport":-1,"wsport":70000,"pid":"7","closed":1,"timeout":"x","propertyhash":null}`))
	if diff := cmp.Diff(Need{InstanceName: "A", Strategies: json.RawMessage(`{}`)}, need); diff != "" {
		t.Error(diff)
	}
}

func TestSatisfied(t *testing.T) {
	for text, want := range map[string]bool{
		`{"instancename":"A"}`:                                                false,
		`{"instancename":"A","pid":7,"ipaddress":"127.0.0.1"}`:                false,
		`{"instancename":"A","pid":7,"tcpport":1}`:                            false,
		`{"instancename":"A","ipaddress":"127.0.0.1","tcpport":1}`:            false,
		`{"instancename":"A","pid":7,"ipaddress":"127.0.0.1","wsport":17000}`: true,
	} {
		r := parse(t, Needs, text)
		filter, err := ParseFilter(Needs, json.RawMessage(`"unsatisfied"`))
		if err != nil {
			t.Fatal(err)
		}
		if ParseNeed(r).Satisfied() != want || filter.Match(r) == want {
			t.Errorf("%s: satisfied %v, chosen %v", text, ParseNeed(r).Satisfied(), filter.Match(r))
		}
	}
}
