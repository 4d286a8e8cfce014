package main

import (
	"io"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// table aligns rows that come one after the other: a column is as wide as the widest
// of its cells so far. If it has a head, what there is no room for on a terminal is cut,
// but for the last column, which tells why: it goes on below its row.
type table struct {
	w       io.Writer
	titles  []string
	widths  []int
	waiting [][]string
}

func (t *table) head(titles []string) {
	t.titles = titles
	t.add(titles)
}

// add adds a row. Empty cells are shown as "-".
func (t *table) add(cells []string) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		if cell == "" {
			cell = "-"
		}
		row[i] = printable(cell)
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		if i < len(cells)-1 || len(cells) == len(t.titles) { // else it ends the row before its time
			t.widths[i] = max(t.widths[i], ansi.StringWidth(row[i]))
		}
	}
	t.waiting = append(t.waiting, row)
}

func (t *table) flush() error {
	widths, room := t.widths, 0
	if t.titles != nil {
		room = terminalWidth(t.w)
	}
	if room > 0 {
		widths = t.fit(room)
	}
	var text strings.Builder
	for _, row := range t.waiting {
		line := t.line(row, widths)
		if room > 0 && len(row) > 1 { // which a sentence is not
			line = below(line, row[len(row)-1], room)
		}
		text.WriteString(line)
		text.WriteByte('\n')
	}
	t.waiting = nil
	return write(t.w, []byte(text.String()))
}

func (t *table) line(row []string, widths []int) string {
	var line strings.Builder
	last := len(row) - 1
	for i, cell := range row[:last] {
		cell = ansi.Truncate(cell, widths[i], "…")
		line.WriteString(cell)
		line.WriteString(strings.Repeat(" ", widths[i]+gap-ansi.StringWidth(cell)))
	}
	return line.String() + row[last]
}

// below is a line for which there is room: the cell at its end goes below it if need be.
func below(line, end string, room int) string {
	const indent = "    "
	const readable = 16 // columns; with less of them what does not fit is cut
	if ansi.StringWidth(line) <= room || room < len(indent)+readable {
		return ansi.Truncate(line, room, "…")
	}
	lines := []string{ansi.Truncate(strings.TrimRight(strings.TrimSuffix(line, end), " "), room, "…")}
	for _, part := range inLines(end, room-len(indent)) {
		lines = append(lines, indent+part)
	}
	return strings.Join(lines, "\n")
}

// fit is how wide the columns are so that there is room for the head of the last one,
// too. Names are cut before anything else.
func (t *table) fit(room int) []int {
	const leastLast, leastName, least = 4, 12, 8
	widths := append([]int(nil), t.widths...)
	last := len(widths) - 1
	excess := gap*last - room + min(widths[last], leastLast)
	for _, width := range widths[:last] {
		excess += width
	}
	for _, pass := range []struct {
		least int
		may   func(title string) bool
	}{
		{leastName, func(title string) bool { return title == "INSTANCE" || title == "MODULE" }},
		{least, func(string) bool { return true }},
	} {
		for ; excess > 0; excess-- {
			widest := -1
			for i, width := range widths[:last] {
				if width > pass.least && pass.may(t.titles[i]) && (widest < 0 || width > widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			widths[widest]--
		}
	}
	return widths
}
