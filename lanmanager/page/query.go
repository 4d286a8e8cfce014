package page

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	rowsOfPage = 50   // unless the query says otherwise
	mostRows   = 1000 // that it can say
	mostFilter = 600  // bytes
	mostQuery  = 4096 // bytes of all of it
)

// query says what somebody wants to see; all of it is in the URL. The zero value
// is what / shows.
type query struct {
	tab    string // a kind's name; empty: the first
	filter string // words, all of which a row must hold
	order  string // as that of a kind; empty: the kind's
	page   int    // from 1; 0: the first
	rows   int    // of a page; 0: rowsOfPage
}

// parseQuery is the query of a URL, for a table that the path names or, if that
// is empty, the query. The error is for whoever wrote the URL.
func parseQuery(raw, table string) (query, error) {
	if len(raw) > mostQuery {
		return query{}, fmt.Errorf("the query has more than %d bytes", mostQuery)
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return query{}, fmt.Errorf("the query can not be read: %w", err)
	}
	q := query{tab: cmp.Or(table, values.Get("tab")), filter: strings.TrimSpace(values.Get("filter")), order: values.Get("sort")}
	if len(q.filter) > mostFilter {
		return query{}, fmt.Errorf("filter has more than %d bytes", mostFilter)
	}
	if q.page, err = number("page", values, 1<<30); err != nil {
		return query{}, err
	}
	if q.rows, err = number("rows", values, mostRows); err != nil {
		return query{}, err
	}
	return q, q.check()
}

func number(name string, values url.Values, most int) (int, error) {
	text := values.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%s is %q; it must be a number from 1 to %d", name, text, most)
	}
	return n, nil
}

// check says whether there are such a table and such a column.
func (q query) check() error {
	k := q.kind()
	if k == nil {
		return fmt.Errorf("there is no table %q; there are %s", q.tab, names(kinds, func(k *kind) string { return k.name }))
	}
	if column, _ := k.column(q.sorted()); column < 0 {
		return fmt.Errorf("%s have no column %q to sort by; they have %s, with - before it downwards", k.nouns, q.order,
			names(k.columns, func(h head) string { return h.name }))
	}
	return nil
}

func names[T any](of []T, name func(T) string) string {
	var all []string
	for _, t := range of {
		all = append(all, name(t))
	}
	return strings.Join(all, ", ")
}

// kind is nil for a table that is not there.
func (q query) kind() *kind {
	i := slices.IndexFunc(kinds, func(k *kind) bool { return k.name == q.tab || q.tab == "" })
	if i < 0 {
		return nil
	}
	return kinds[i]
}

func (q query) sorted() string { return cmp.Or(q.order, q.kind().order) }

func (q query) words() []string { return strings.Fields(strings.ToLower(q.filter)) }

// URL is where q is shown, without what goes without saying.
func (q query) URL() string {
	values := q.values()
	if k := q.kind(); k != kinds[0] {
		values.Set("tab", k.name)
	}
	return at("/", values)
}

// api is where q is for programs.
func (q query) api() string { return at("/api/"+q.kind().name, q.values()) }

func at(path string, values url.Values) string {
	if len(values) == 0 {
		return path
	}
	return path + "?" + values.Encode()
}

// values is q but for its table, without what goes without saying.
func (q query) values() url.Values {
	values := url.Values{}
	if q.filter != "" {
		values.Set("filter", q.filter)
	}
	if q.sorted() != q.kind().order {
		values.Set("sort", q.order)
	}
	if q.page > 1 {
		values.Set("page", strconv.Itoa(q.page))
	}
	if q.size() != rowsOfPage {
		values.Set("rows", strconv.Itoa(q.rows))
	}
	return values
}

// Kept is what the form of the filter keeps of q: all but the filter and the page.
func (q query) Kept() map[string]string {
	kept := map[string]string{}
	if k := q.kind(); k != kinds[0] {
		kept["tab"] = k.name
	}
	for name, value := range q.values() {
		if name == "sort" || name == "rows" {
			kept[name] = value[0]
		}
	}
	return kept
}

// Filter is what the rows must hold.
func (q query) Filter() string { return q.filter }

func (q query) size() int { return cmp.Or(q.rows, rowsOfPage) }

// result is the page of a table that a query asks for.
type result struct {
	page, pages int
	from        int   // rows before it
	rows        []int // indices
	matched     int
	total       int
}

// find takes the last page for one that is behind it: rows go while somebody looks.
func (t *table) find(q query) result {
	found := t.found(q.sorted(), q.words())
	size := q.size()
	r := result{matched: len(found), total: t.rows.count, pages: max(1, (len(found)+size-1)/size)}
	r.page = min(max(q.page, 1), r.pages)
	r.from = (r.page - 1) * size
	r.rows = found[r.from:min(r.from+size, len(found))]
	return r
}
