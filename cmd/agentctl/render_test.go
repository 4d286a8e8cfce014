//go:build !windows

package main

import (
	"strings"
	"testing"
	"time"
)

func TestBrief(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 1999 * time.Millisecond: "1s", 119 * time.Second: "119s",
		2 * time.Minute: "2m", 119 * time.Minute: "119m", 2 * time.Hour: "2h", 47 * time.Hour: "47h", 2 * day: "2d", 400 * day: "400d",
	} {
		if got := brief(d); got != want {
			t.Errorf("brief(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestIn(t *testing.T) {
	p := &page{now: moment}
	for d, want := range map[time.Duration]string{
		-time.Second: "", 0: "", time.Millisecond: "in 1s", time.Second: "in 1s", 1001 * time.Millisecond: "in 2s", 3 * time.Hour: "in 3h",
	} {
		if got := p.in(before(-d)); got != want {
			t.Errorf("in %v: %q, want %q", d, got, want)
		}
	}
	if p.in(nil) != "" || p.age(nil) != "" {
		t.Error("an unset time has an age")
	}
}

func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{
		"plain ünïcödé 日本": "plain ünïcödé 日本",
		"a\tb\nc":          `a\tb\nc`,
		"\x1b[2J":          `\x1b[2J`,
		"\u202egnp":        `\u202egnp`,
		`back\slash "q"`:   `back\slash "q"`,
		"\xff":             "\uFFFD",
	} {
		if got := printable(s); got != want {
			t.Errorf("printable(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestSome(t *testing.T) {
	names := strings.Split("abcdefghij", "")
	for want, got := range map[string]string{
		"":                                  some(nil, 0),
		"a, b, c, d, e, f, g, h":            some(names[:8], 8),
		"a, b, c, d, e, f, g, h and 1 more": some(names[:9], 9),
		"a, b and 998 more":                 some(names[:2], 1000),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
