package port

import "testing"

func TestOverlap(t *testing.T) {
	kept := func(from, to int) *set {
		var s set
		for n := from; n <= to; n++ {
			s.add(n)
		}
		return &s
	}
	tests := []struct {
		name string
		r    Range
		kept *set
		warn string
	}{
		{"below", Range{TCP, 15000, 1000}, new(set), ""},
		{"above", Range{TCP, 61000, 1000}, new(set), ""},
		{"up to it", Range{TCP, 32668, 100}, new(set), ""},
		{"its first port", Range{TCP, 32668, 101}, new(set), keepCure(32768, 32768)},
		{"its last port", Range{HTTP, 60999, 10}, new(set), keepCure(60999, 60999)},
		{"in it", Range{WS, 40000, 1000}, new(set), keepCure(40000, 40999)},
		{"in it but kept", Range{WS, 40000, 1000}, kept(40000, 40999), ""},
		{"in it and half kept", Range{WS, 40000, 1000}, kept(39000, 40499), keepCure(40500, 40999)},
	}
	for _, tt := range tests {
		got := overlap(tt.r, 32768, 60999, tt.kept)
		want := ""
		if tt.warn != "" {
			want = "the range " + tt.r.String() + " overlaps the ports 32768-60999 that this system gives to outgoing connections;" +
				" such a connection can hold a port of the range for as long as it lasts, and the service that wants it" +
				" gets another one or must wait; move portrangestart." + tt.r.Protocol.String() + ", or " + tt.warn
		}
		if got != want {
			t.Errorf("%s:\n%s, want\n%s", tt.name, got, want)
		}
	}
}

// The whole of all ports overlaps whatever this system uses, port 1 nothing.
func TestCheck(t *testing.T) {
	got := Check(Range{TCP, 1, 1}, Range{HTTP, 1, maxPort}, Range{WS, 1, 1})
	if len(got) != 1 {
		t.Errorf("%d warnings, want one for http: %q", len(got), got)
	}
}
