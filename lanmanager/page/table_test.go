package page

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// shown is the texts of a column of the rows that a query finds.
func shown(t *testing.T, s Snapshot, query, column string) []string {
	t.Helper()
	q, err := parseQuery(query, "")
	if err != nil {
		t.Fatal(err)
	}
	table := newMoment(&s).tables[q.kind().name]
	c, _ := table.kind.column(column)
	var texts []string
	for _, row := range table.find(q).rows {
		texts = append(texts, table.rows.cell(row, c).Text)
	}
	return texts
}

func TestTables(t *testing.T) {
	s := Snapshot{
		Needs: []Need{
			{Instance: "web10", Module: "files", Source: "needs", Since: begun},
			{Instance: "web2", Module: "Echo", Open: true, Why: "Nobody has it.", Source: "needs", Since: begun.Add(-time.Hour)},
			{Instance: "web1", Module: "echo", Source: "needs.runtime", Since: begun.Add(time.Hour)},
		},
		Services: []Service{{Instance: "web10", Owner: "mars", Address: "10.0.0.1"}},
		Events: []Event{
			{begun, ServiceUp, "a", ""}, {begun, ServiceDown, "b", "killed"}, {begun.Add(time.Second), NeedOpen, "c", ""},
		},
	}
	for query, want := range map[string][]string{
		"":                          {"web2", "web10", "web1"}, // the open ones first
		"sort=instance":             {"web1", "web2", "web10"},
		"sort=-instance":            {"web10", "web2", "web1"},
		"sort=since":                {"web2", "web10", "web1"},
		"sort=-since":               {"web1", "web10", "web2"},
		"sort=module":               {"web2", "web1", "web10"},
		"filter=ECHO":               {"web2", "web1"},
		"filter=echo+runtime":       {"web1"},
		"filter=++echo++nobody++":   {"web2"},
		"filter=mars":               {"web10"},
		"filter=open":               {"web2"},
		"filter=nowhere":            nil,
		"rows=2":                    {"web2", "web10"},
		"rows=2&page=2":             {"web1"},
		"rows=2&page=9":             {"web1"}, // rows go while somebody looks
		"filter=nowhere&page=2":     nil,
		"rows=1&page=2&filter=echo": {"web1"},
	} {
		if diff := cmp.Diff(want, shown(t, s, query, "instance")); diff != "" {
			t.Errorf("%q (-want +got)\n%s", query, diff)
		}
	}
	if diff := cmp.Diff([]string{"c", "b", "a"}, shown(t, s, "tab=events", "subject")); diff != "" {
		t.Errorf("the newest event is not the first (-want +got)\n%s", diff)
	}
}

func TestQueryURL(t *testing.T) {
	for given, want := range map[string]string{
		"":                               "/",
		"tab=needs&page=1&sort=state":    "/",
		"tab=events&sort=-time&rows=50":  "/?tab=events",
		"tab=events&sort=time":           "/?sort=time&tab=events",
		"filter=+a+%26+b+&page=3&rows=9": "/?filter=a+%26+b&page=3&rows=9",
	} {
		q, err := parseQuery(given, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := q.URL(); got != want {
			t.Errorf("%q is shown at %s, want %s", given, got, want)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "tab=events&sort=-time&filter=a+b&page=2&rows=100", "filter=%ff%00", "page=9999999999", "sort=-", "tab=nat&sort=eport;x"} {
		f.Add(seed)
	}
	s := lan(60, begun)
	m := newMoment(&s)
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw, "")
		if err != nil {
			return
		}
		u, err := url.Parse(q.URL())
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseQuery(u.RawQuery, "")
		if err != nil || again.URL() != q.URL() {
			t.Fatalf("%q is shown at %s, which is %s (%v)", raw, q.URL(), again.URL(), err)
		}
		v := newView(m, q, begun)
		if len(v.Rows) > q.size() {
			t.Fatalf("%q shows %d rows", raw, len(v.Rows))
		}
	})
}

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "",
		"plain text":             "plain text",
		"مرحبا café 日本":          "مرحبا café 日本",
		"a\u202eb\u2066":         `a\u202eb\u2066`,
		"a\nb\t\x00\x1b\x7f":     `a\nb\t\x00\x1b\x7f`,
		"\xff\xfe":               `\xff\xfe`,
		"\u200bzero\ufeff":       `\u200bzero\ufeff`,
		"no\u00a0break":          `no\u00a0break`,
		strings.Repeat("é", 601): strings.Repeat("é", 600) + "…",
	} {
		if got := visible(text); got != want {
			t.Errorf("visible(%q) is %q, want %q", text, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		for _, r := range visible(rapid.String().Draw(t, "text")) {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q is to be seen", r)
			}
		}
	})
}

func TestNatural(t *testing.T) {
	sorted := []string{"", "1", "2", "10", "10.0.0.2", "10.0.0.10", "a", "A1", "a2b", "a10", "b"}
	for i, a := range sorted {
		for j, b := range sorted {
			got := natural(a, b)
			if want := i - j; got*want < 0 || (got == 0) != (want == 0) {
				t.Errorf("natural(%q, %q) is %d", a, b, got)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-bA-B0-2.]{0,6}`)
		a, b, c := text.Draw(t, "a"), text.Draw(t, "b"), text.Draw(t, "c")
		if natural(a, b) != -natural(b, a) {
			t.Fatalf("%q and %q are not the other way round", a, b)
		}
		if natural(a, b) <= 0 && natural(b, c) <= 0 && natural(a, c) > 0 {
			t.Fatalf("%q, %q, %q are in no order", a, b, c)
		}
	})
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "now", 999 * time.Millisecond: "now", time.Second: "1 s", 59 * time.Second: "59 s", time.Minute: "1 min",
		time.Hour - 1: "59 min", time.Hour: "1 h", 48*time.Hour - 1: "47 h", 48 * time.Hour: "2 d", 1000 * time.Hour: "41 d",
	} {
		if got := age(begun.Add(d), begun); got != want {
			t.Errorf("the age of %v is %q, want %q", d, got, want)
		}
	}
}

func TestSummary(t *testing.T) {
	up := []Machine{{Connected: true}}
	for _, c := range []struct {
		s    Snapshot
		want string
	}{
		{Snapshot{}, "quiet: Nothing is needed.; warn: No machine connected."},
		{Snapshot{Machines: up, Needs: make([]Need, 1200)}, "good: 1,200 needs served, none open."},
		{Snapshot{Machines: up, Needs: []Need{{Open: true}}}, "warn: 1 of 1 need open."},
		{Snapshot{Machines: make([]Machine, 1), Needs: make([]Need, 2)}, "good: 2 needs served, none open.; warn: No machine connected."},
		{Snapshot{Machines: append(up, make([]Machine, 2)...), Problems: make([]Problem, 2)},
			"quiet: Nothing is needed.; warn: 2 machines away.; bad: 2 files have mistakes."},
	} {
		var got []string
		for _, s := range newMoment(&c.s).summary() {
			got = append(got, fmt.Sprintf("%s: %s", s.Tone, s.Text))
		}
		if got := strings.Join(got, "; "); got != c.want {
			t.Errorf("it says %q, want %q", got, c.want)
		}
	}
}
