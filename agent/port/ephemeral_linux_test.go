package port

import "testing"

func TestParseList(t *testing.T) {
	for list, want := range map[string][]int{
		"":                      nil,
		"\n":                    nil,
		"8080\n":                {8080},
		"8080,9000-9002,65535":  {8080, 9000, 9001, 9002, 65535},
		"70000,-5,x,9-8,0-1,\n": {1},
	} {
		var s set
		for _, n := range want {
			s.add(n)
		}
		if got := parseList(list); *got != s {
			t.Errorf("%q: not %v", list, want)
		}
	}
}
