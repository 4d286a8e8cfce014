package rawjson

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestElements(t *testing.T) {
	tests := []struct {
		text  string
		depth int
		want  []string
		err   error
	}{
		{` [ ] `, 1, nil, nil},
		{`[1,"a",null,{"x":[]}]`, 3, []string{`1`, `"a"`, `null`, `{"x":[]}`}, nil},
		{"[ 1 ,\t[2 ] ]\n", 2, []string{`1`, `[2 ]`}, nil},
		{`["\u0000\"]"]`, 1, []string{`"\u0000\"]"`}, nil},
		{`[[1]]`, 1, nil, ErrDepth},
		{`{}`, 9, nil, ErrSyntax},
		{`[1,]`, 9, nil, ErrSyntax},
		{`[1] 2`, 9, nil, ErrSyntax},
		{`[`, 9, nil, ErrSyntax},
		{``, 9, nil, ErrSyntax},
	}
	for _, test := range tests {
		elements, err := Elements([]byte(test.text), test.depth, nil)
		if !errors.Is(err, test.err) {
			t.Errorf("%s: error %v, want %v", test.text, err, test.err)
		}
		if err != nil {
			continue
		}
		var got []string
		for _, e := range elements {
			got = append(got, string(e))
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.text, diff)
		}
	}
}

func TestMembers(t *testing.T) {
	var got []string
	err := Members([]byte(` { "a" : 1 , "\u0062":{"c":2}, "a":"x" } `), 2, func(key, value []byte) {
		got = append(got, string(key)+"="+string(value))
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a=1", `b={"c":2}`, `a="x"`}, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{`[]`, `{"a"}`, `{"a":}`, `{a:1}`, `{"a":1,}`, `{"a":1} 1`, `{"a\x":1}`} {
		if err := Members([]byte(bad), 9, func(_, _ []byte) {}); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: error %v", bad, err)
		}
	}
}

func TestScalars(t *testing.T) {
	for text, want := range map[string]int{"15000": 15000, "1.5e3": 1500, "-7": -7, "1.0": 1} {
		if n, ok := Int([]byte(text)); !ok || n != want {
			t.Errorf("Int(%s) = %d, %v", text, n, ok)
		}
	}
	for _, text := range []string{"", "null", `"1"`, "1.5", "1e300", "1e999", "true"} {
		if n, ok := Int([]byte(text)); ok {
			t.Errorf("Int(%s) = %d", text, n)
		}
	}
	for _, s := range []string{"", "plain", "a\"b\\c\x00\n", "žuti <&>", "\u2028"} {
		quoted := AppendString(nil, s)
		if got, ok := String(quoted); !ok || got != s {
			t.Errorf("%q became %s, then %q", s, quoted, got)
		}
		if !Is(quoted, s) || Is(quoted, s+"x") {
			t.Errorf("%s is %q: %v", quoted, s, Is(quoted, s))
		}
	}
	for _, text := range []string{"", "5", `"`, "null"} {
		if Is([]byte(text), text) {
			t.Errorf("%s is a string", text)
		}
	}
}

// Every text is taken for JSON exactly if encoding/json takes it.
func FuzzValue(f *testing.F) {
	for _, seed := range []string{
		`null`, ` -0.5e+7 `, `01`, `"\u12aF"`, `"\u12a"`, "\"\x01\"", `{"a":[1,{}],"b":"\\"}`, `[[[[]]]]`, `tru`, `"`, `-`, `1.`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		value, err := Value(text, 1000)
		if errors.Is(err, ErrDepth) {
			return
		}
		if valid := json.Valid(text); (err == nil) != valid {
			t.Fatalf("%q: error %v, encoding/json says %v", text, err, valid)
		}
		if err == nil && string(value) != strings.Trim(string(text), " \t\r\n") {
			t.Fatalf("%q became %q", text, value)
		}
	})
}
