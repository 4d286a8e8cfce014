package page

import "time"

// view is what the template shows.
type view struct {
	*moment
	Now     time.Time
	Summary []sentence
	Tabs    []tab
	Downs   []down
	Query   query
	Kind    string // of the table
	Nouns   string // what its rows are
	Heads   []viewHead
	Rows    []viewRow
	Pager   pager
	Start   *when
	JSON    string // URL of the table for programs
}

type tab struct {
	Title, URL string
	Count      string
	Note, Tone string // what of it needs attention
	Current    bool
}

// when is a time, to be shown as how long ago it was.
type when struct{ Stamp, Exact, Age string }

// newWhen is nil for a time that nobody knows.
func newWhen(now, t time.Time) *when {
	if t.IsZero() {
		return nil
	}
	return &when{Stamp: t.Format(time.RFC3339Nano), Exact: t.Format("2006-01-02 15:04:05 MST"), Age: age(now, t)}
}

type down struct {
	Event
	Tone, URL string
	When      *when
}

type viewHead struct {
	Title, Class string
	URL          string // sorts by it
	Sorted       string // ascending, descending; empty: by another
}

type viewRow struct {
	Key   string
	Cells []viewCell
}

type viewCell struct {
	cell
	Title, Class string // of the column
	URL          string
	When         *when
}

// pager says which rows these are, and leads to the others.
type pager struct {
	Summary string
	None    string // what to say instead of rows
	Links   []turn // none if there is one page
}

type turn struct {
	Sign, Title string
	URL         string // empty: it leads nowhere
}

// Empty tells whether there is nothing to see.
func (c viewCell) Empty() bool { return c.Text == "" && c.When == nil }

func newView(m *moment, q query, now time.Time) *view {
	k := q.kind()
	t := m.tables[k.name]
	r := t.find(q)
	v := &view{
		moment: m, Now: now, Query: q, Kind: k.title, Nouns: k.nouns, Tabs: m.tabs(k), Heads: heads(q),
		Pager: newPager(q, r), Summary: m.summary(), Start: newWhen(now, m.Started), JSON: q.api(),
	}
	for _, i := range r.rows {
		v.Rows = append(v.Rows, newRow(t, i, now))
	}
	for _, e := range m.downs() {
		v.Downs = append(v.Downs, down{e, e.tone(), linked(query{tab: events.name, filter: e.Subject}), newWhen(now, e.Time)})
	}
	return v
}

func newRow(t *table, i int, now time.Time) viewRow {
	row := viewRow{Key: t.key(i), Cells: make([]viewCell, len(t.kind.columns))}
	for c, h := range t.kind.columns {
		shown := viewCell{cell: t.rows.cell(i, c), Title: h.title, Class: h.class}
		shown.Text, shown.When = visible(shown.Text), newWhen(now, shown.Time)
		if shown.Link.tab != "" {
			shown.URL = linked(shown.Link)
		}
		row.Cells[c] = shown
	}
	return row
}

// linked is the URL of a query for what came from the wire; empty if it is too
// long to look for.
func linked(q query) string {
	if q.filter = visible(q.filter); len(q.filter) > mostFilter {
		return ""
	}
	return q.URL()
}

func heads(q query) []viewHead {
	k := q.kind()
	current, down := k.column(q.sorted())
	all := make([]viewHead, len(k.columns))
	for i, h := range k.columns {
		to := query{tab: q.tab, filter: q.filter, rows: q.rows, order: h.name}
		all[i] = viewHead{Title: h.title, Class: h.class}
		switch {
		case i == current && down:
			all[i].Sorted = "descending"
		case i == current:
			all[i].Sorted, to.order = "ascending", "-"+h.name
		}
		all[i].URL = to.URL()
	}
	return all
}

func newPager(q query, r result) pager {
	k := q.kind()
	all := several(r.total, k.noun, k.nouns)
	var p pager
	switch shown := count(r.from+1) + "–" + count(r.from+len(r.rows)) + " of "; {
	case r.total == 0:
		p.None = k.none
	case r.matched == 0:
		p.Summary = "None found in " + all
		p.None = "No " + k.noun + " has “" + visible(q.filter) + "” in its columns."
	case r.matched < r.total && r.pages == 1:
		p.Summary = count(r.matched) + " found in " + all
	case r.matched < r.total:
		p.Summary = shown + count(r.matched) + " found in " + all
	case r.pages == 1:
		p.Summary = all
	default:
		p.Summary = shown + all
	}
	if r.pages == 1 {
		return p
	}
	link := func(sign, title string, page int) {
		l := turn{Sign: sign, Title: title}
		if page >= 1 && page <= r.pages && page != r.page {
			q := q
			q.page = page
			l.URL = q.URL()
		}
		p.Links = append(p.Links, l)
	}
	link("«", "First page", 1)
	link("‹ Back", "Back one page", r.page-1)
	link("Next ›", "Next page", r.page+1)
	link("»", "Last page", r.pages)
	return p
}

func (m *moment) tabs(current *kind) []tab {
	all := make([]tab, len(kinds))
	for i, k := range kinds {
		all[i] = tab{
			Title: k.title, URL: query{tab: k.name}.URL(),
			Count: count(m.tables[k.name].rows.count), Current: k == current,
		}
		switch {
		case k == needs && m.Open > 0:
			all[i].Note, all[i].Tone = count(m.Open)+" open", "warn"
		case k == services && m.unconfirmed > 0:
			all[i].Note, all[i].Tone = count(m.unconfirmed)+" unconfirmed", "warn"
		case k == machines && m.away > 0:
			all[i].Note, all[i].Tone = count(m.away)+" away", "bad"
		}
	}
	return all
}

// sentence is a part of the summary.
type sentence struct{ Text, Tone string }

// summary answers what an administrator asks first: is anything wrong?
func (m *moment) summary() []sentence {
	var all []sentence
	say := func(tone, text string) { all = append(all, sentence{text, tone}) }
	switch n := len(m.Needs); {
	case n == 0:
		say("quiet", "Nothing is needed.")
	case m.Open == 0:
		say("good", several(n, "need", "needs")+" served, none open.")
	default:
		say("warn", count(m.Open)+" of "+several(n, "need", "needs")+" open.")
	}
	switch {
	case len(m.Machines) == m.away:
		say("warn", "No machine connected.")
	case m.away > 0:
		say("warn", several(m.away, "machine", "machines")+" away.")
	}
	if n := len(m.Problems); n > 0 {
		say("bad", several(n, "file has a mistake", "files have mistakes")+".")
	}
	return all
}
