package page

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
)

// kind is one of the tables of the page, without its rows.
type kind struct {
	name        string // in the URL
	title       string
	noun, nouns string
	none        string // what to say, and to do, when there are no rows
	order       string // a column's name: how it is sorted unless the URL says otherwise; with "-" downwards
	columns     []head
	rows        func(*Snapshot) rows
}

// head is what a column is apart from its cells.
type head struct {
	name  string // in the URL
	title string
	class string // for the style
	key   bool   // tells one row from another, together with the other keys
}

// rows are the rows of a kind in one snapshot, in the order of the snapshot.
type rows struct {
	count  int
	cell   func(row, column int) cell
	record func(row int) any
}

// cell is what a row shows in a column: a text, how long ago something was, or both.
type cell struct {
	Text string
	Time time.Time
	Tone string // good, warn, bad or quiet makes the text a badge
	Link query  // what a click on the text shows; zero: it is no link
}

// column is a head and its cells.
type column[T any] struct {
	head
	cell func(*T) cell
}

func newKind[T any](k kind, all func(*Snapshot) []T, columns ...column[T]) *kind {
	for _, c := range columns {
		k.columns = append(k.columns, c.head)
	}
	k.rows = func(s *Snapshot) rows {
		of := all(s)
		return rows{
			count:  len(of),
			cell:   func(row, column int) cell { return columns[column].cell(&of[row]) },
			record: func(row int) any { return &of[row] },
		}
	}
	return &k
}

// column is the index of the column that an order names, and whether it is
// downwards; -1 for one that is not there.
func (k *kind) column(order string) (index int, down bool) {
	name, down := strings.CutPrefix(order, "-")
	return slices.IndexFunc(k.columns, func(h head) bool { return h.name == name }), down
}

// table is the rows of a kind at one moment. What is costly is made once, when
// somebody asks for it, and shared by all viewers.
type table struct {
	kind *kind
	rows rows

	mu     sync.Mutex
	orders map[string][]int
	texts  []string // of whole rows, in lower case, to search
}

// sorted is the indices of the rows in an order of the kind's columns. Rows that
// are equal in it stay in the order of the snapshot.
func (t *table) sorted(order string) []int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if indices := t.orders[order]; indices != nil {
		return indices
	}
	column, down := t.kind.column(order)
	indices, cells := make([]int, t.rows.count), make([]cell, t.rows.count)
	for i := range indices {
		indices[i], cells[i] = i, t.rows.cell(i, column)
	}
	slices.SortStableFunc(indices, func(a, b int) int {
		if down {
			a, b = b, a
		}
		return cells[a].compare(cells[b])
	})
	if t.orders == nil {
		t.orders = make(map[string][]int)
	}
	t.orders[order] = indices
	return indices
}

func (c cell) compare(d cell) int {
	return cmp.Or(c.Time.Compare(d.Time), natural(c.Text, d.Text))
}

// found is the indices of the rows that hold every word, in an order.
func (t *table) found(order string, words []string) []int {
	indices := t.sorted(order)
	if len(words) == 0 {
		return indices
	}
	texts := t.searched()
	var found []int
	for _, i := range indices {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(texts[i], w) }) {
			found = append(found, i)
		}
	}
	return found
}

func (t *table) searched() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.texts == nil {
		t.texts = make([]string, t.rows.count)
		var row strings.Builder
		for i := range t.texts {
			row.Reset()
			for c := range t.kind.columns {
				row.WriteString(visible(t.rows.cell(i, c).Text))
				row.WriteByte('\n')
			}
			t.texts[i] = strings.ToLower(row.String())
		}
	}
	return t.texts
}

// key is the same for the same row at all moments, as far as it has keys.
func (t *table) key(row int) string {
	var key []string
	for c, h := range t.kind.columns {
		if h.key {
			key = append(key, visible(t.rows.cell(row, c).Text))
		}
	}
	return strings.Join(key, " ")
}
