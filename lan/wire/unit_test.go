package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/allexgo/machine-agent/lan/transcript"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var transcripts = []string{"client-bid-cycle.log", "client-edge-cases.log", "master-ws.log", "master-signalr.log"}

func recorded(t testing.TB, name string) []transcript.Line {
	t.Helper()
	lines, err := transcript.Read(filepath.Join("../testdata/transcripts", name))
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// What a client sent on purpose that is no unit.
var garbage = map[string]error{
	`not json`: ErrNotJSON, `{"a":1}`: ErrNotUnit, `[]`: ErrNotUnit, `["x"]`: ErrNotUnit, `5`: ErrNotUnit,
}

// Every unit of the real programs is understood, and written again as it was.
func TestTranscriptsThereAndBack(t *testing.T) {
	for _, name := range transcripts {
		kinds := make(map[Kind]int)
		for _, line := range recorded(t, name) {
			parse := ParseReply
			switch line.Kind {
			case transcript.FromClient:
				parse = ParseRequest
			case transcript.FromServer:
			default:
				continue
			}
			u, err := parse([]byte(line.Text), Limits{})
			if want := garbage[line.Text]; want != nil && line.Kind == transcript.FromClient {
				if !errors.Is(err, want) {
					t.Errorf("%s:%d: error %v, want %v", name, line.Number, err, want)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s:%d: %v", name, line.Number, err)
				continue
			}
			kinds[u.Kind]++
			if diff := cmp.Diff(decoded(t, []byte(line.Text)), decoded(t, u.AppendJSON(nil))); diff != "" {
				t.Errorf("%s:%d: %s", name, line.Number, diff)
			}
		}
		for _, kind := range []Kind{Introduce, Call, Resolve, Notify, OutOfBand} {
			if kinds[kind] == 0 {
				t.Errorf("%s has no %s", name, kind)
			}
		}
	}
}

func decoded(t testing.TB, text []byte) any {
	t.Helper()
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return value
}

func TestParseRequest(t *testing.T) {
	raw := func(texts ...string) []json.RawMessage {
		list := []json.RawMessage{}
		for _, text := range texts {
			list = append(list, json.RawMessage(text))
		}
		return list
	}
	tests := []struct {
		text string
		want Unit
		err  error
	}{
		{`["1",[null,{"ip":{}}]]`, Unit{Kind: Introduce, ID: "1", Credentials: json.RawMessage(`{"ip":{}}`)}, nil},
		{`["1",[null,null]]`, Unit{Kind: Introduce, ID: "1"}, nil},
		{`["1",["S"]]`, Unit{Kind: Introduce, ID: "1", Session: "S"}, nil},
		{`["1",["S",null],["!",["bid",[{},null]]]]`, Unit{Kind: Call, ID: "1", Session: "S", Target: "!", Method: "bid", Args: raw(`{}`, `null`)}, nil},
		{`["1",["S",null],["!",["die"]]]`, Unit{Kind: Call, ID: "1", Session: "S", Target: "!", Method: "die"}, nil},
		{`["1",["S",null],["!",["die",null]]]`, Unit{Kind: Call, ID: "1", Session: "S", Target: "!", Method: "die"}, nil},
		{`["1",["S",null],[".",["down","x"]]]`, Unit{Kind: Call, ID: "1", Session: "S", Target: ".", Method: "down", Args: raw(`"x"`)}, nil},
		{` [ "\u0031" , [ "S" , null ] ] `, Unit{Kind: Introduce, ID: "1", Session: "S"}, nil},
		{`["?",1795354470717]`, Unit{Kind: Ping, Value: json.RawMessage(`1795354470717`)}, nil},
		{`["!",1.50]`, Unit{Kind: Pong, Value: json.RawMessage(`1.50`)}, nil},
		{`["?","x"]`, Unit{}, ErrNotUnit},
		{`[1,[null,null]]`, Unit{}, ErrNotUnit},
		{`["",[null,null]]`, Unit{}, ErrNotUnit},
		{`["1",null]`, Unit{}, ErrNotUnit},
		{`["1",[]]`, Unit{}, ErrNotUnit},
		{`["1",[5,null]]`, Unit{}, ErrNotUnit},
		{`["1",["S",null],null]`, Unit{}, ErrNotUnit},
		{`["1",["S",null],["!"]]`, Unit{}, ErrNotUnit},
		{`["1",["S",null],["!",[]]]`, Unit{}, ErrNotUnit},
		{`["1",["S",null],["!",[5]]]`, Unit{}, ErrNotUnit},
		{`["1",["S",null],[null,["x"]]]`, Unit{}, ErrNotUnit},
		{`["1",["S",null]`, Unit{}, ErrNotJSON},
		{``, Unit{}, ErrNotJSON},
	}
	for _, test := range tests {
		got, err := ParseRequest([]byte(test.text), Limits{})
		if !errors.Is(err, test.err) {
			t.Errorf("%s: error %v, want %v", test.text, err, test.err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.text, diff)
		}
	}
}

func TestParseReply(t *testing.T) {
	tests := []struct {
		text string
		want Unit
		err  error
	}{
		{`["r","1",true]`, Unit{Kind: Resolve, ID: "1", Value: json.RawMessage(`true`)}, nil},
		{`["r","1"]`, Unit{Kind: Resolve, ID: "1"}, nil},
		{`["e","1",{"code":"C","message":"M"}]`, Unit{Kind: Reject, ID: "1", Code: "C", Message: "M"}, nil},
		{`["e","1",{"code":7,"message":null}]`, Unit{Kind: Reject, ID: "1", Code: "7"}, nil},
		{`["e","1","odd"]`, Unit{Kind: Reject, ID: "1", Code: "odd"}, nil},
		{`["e","1",null]`, Unit{Kind: Reject, ID: "1"}, nil},
		{`["oob",["S","-",true]]`, Unit{Kind: OutOfBand, Session: "S", Channel: "-", Value: json.RawMessage(`true`)}, nil},
		{`["f",5]`, Unit{Kind: Forget, Value: json.RawMessage(`5`)}, nil},
		{`["~",0,"]"]`, Unit{Kind: Piece, Text: "]"}, nil},
		{`["~",70000,"[["]`, Unit{Kind: Piece, Remaining: 70000, Text: "[["}, nil},
		{`{"err":{}}`, Unit{Kind: AuthFailure}, nil},
		{`{"a":1}`, Unit{}, ErrNotUnit},
		{`{"err":`, Unit{}, ErrNotJSON},
		{`["~",-1,"x"]`, Unit{}, ErrNotUnit},
		{`["~",1,2]`, Unit{}, ErrNotUnit},
		{`["oob",["S"]]`, Unit{}, ErrNotUnit},
		{`["oob",[null,"s",1]]`, Unit{}, ErrNotUnit},
		{`["r",1,2]`, Unit{}, ErrNotUnit},
		{`["x","1",2]`, Unit{}, ErrNotUnit},
		{`["r"]`, Unit{}, ErrNotUnit},
		{`null`, Unit{}, ErrNotUnit},
	}
	for _, test := range tests {
		got, err := ParseReply([]byte(test.text), Limits{})
		if !errors.Is(err, test.err) {
			t.Errorf("%s: error %v, want %v", test.text, err, test.err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.text, diff)
		}
	}
}

func TestLimitsOfUnits(t *testing.T) {
	limits := Limits{Unit: 40, Depth: 4}
	tests := []struct {
		text string
		err  error
	}{
		{`["r","1",[[1]]]`, nil},
		{`["r","1",[[[[1]]]]]`, ErrTooDeep},
		{`["r","1","` + strings.Repeat("x", 28) + `"]`, nil},
		{`["r","1","` + strings.Repeat("x", 29) + `"]`, ErrTooLarge},
		{`{"err":"` + strings.Repeat("x", 31) + `"}`, ErrTooLarge},
		{`{"err":[[[[1]]]]}`, ErrTooDeep},
	}
	for _, test := range tests {
		if _, err := ParseReply([]byte(test.text), limits); !errors.Is(err, test.err) {
			t.Errorf("reply %s: error %v, want %v", test.text, err, test.err)
		}
	}
	if _, err := ParseRequest([]byte(`["1",[null,[[[[1]]]]]]`), limits); !errors.Is(err, ErrTooDeep) {
		t.Errorf("request: error %v", err)
	}
	if _, err := ParseReply([]byte(strings.Repeat("[", 100_000)), Limits{}); !errors.Is(err, ErrTooDeep) {
		t.Errorf("100,000 brackets: error %v", err)
	}
}

func TestEmptyUnits(t *testing.T) {
	for _, kind := range []Kind{Introduce, Call, Ping, Pong, Resolve, Reject, Notify, OutOfBand, Forget, Piece, AuthFailure} {
		if text := (Unit{Kind: kind}).AppendJSON(nil); !json.Valid(text) {
			t.Errorf("%s: %s", kind, text)
		}
	}
	if text := (Unit{}).AppendJSON([]byte("x")); string(text) != "x" {
		t.Errorf("no kind: %s", text)
	}
	if Kind(200).String() == "" || Kind(0).String() != "none" {
		t.Error("a kind has no name")
	}
}

func FuzzParseRequest(f *testing.F) { fuzz(f, transcript.FromClient, ParseRequest) }

func FuzzParseReply(f *testing.F) { fuzz(f, transcript.FromServer, ParseReply) }

// What is parsed is written in a form that is parsed the same, and an error is
// one of the four.
func fuzz(f *testing.F, kind transcript.Kind, parse func([]byte, Limits) (Unit, error)) {
	for _, name := range transcripts {
		for _, line := range recorded(f, name) {
			if line.Kind == kind {
				f.Add([]byte(line.Text))
			}
		}
	}
	f.Add([]byte(`["~",3,"x\u0000"]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		u, err := parse(text, Limits{})
		if err != nil {
			if !errors.Is(err, ErrNotJSON) && !errors.Is(err, ErrNotUnit) && !errors.Is(err, ErrTooDeep) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("%q: error %v", text, err)
			}
			return
		}
		once := u.AppendJSON(nil)
		if bytes.IndexByte(once, 0) >= 0 {
			t.Fatalf("%q was written with a NUL: %q", text, once)
		}
		again, err := parse(once, Limits{Depth: 100, Unit: 8 << 20})
		if err != nil {
			t.Fatalf("%q was written as %q: %v", text, once, err)
		}
		if twice := again.AppendJSON(nil); !bytes.Equal(once, twice) {
			t.Fatalf("%q was written as %q, then as %q", text, once, twice)
		}
	})
}
