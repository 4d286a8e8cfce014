package main

import (
	"fmt"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// How text looks. What the terminal can not show, or NO_COLOR forbids, is left
// out on the way there.
const (
	plainText = "\x1b[m"
	bold      = "\x1b[1m"
	faint     = "\x1b[2m"
	marked    = "\x1b[7m"
	red       = "\x1b[31m"
	green     = "\x1b[32m"
	yellow    = "\x1b[33m"
)

func styled(style, text string) string {
	if style == "" || text == "" {
		return text
	}
	return style + text + plainText
}

// rows is for how many rows there is room: below the sums and the head, and above
// what stands below them and the keys.
func (t *top) rows() int { return max(1, t.height-3-len(t.below())) }

func (t *top) View() tea.View {
	var lines []string
	switch {
	case t.log != nil:
		lines = t.log.screen(t.width, t.height)
	case t.helping:
		lines = t.helpScreen()
	default:
		lines = t.table()
	}
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, t.width, "…")
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	return v
}

// table is the screen with the table.
func (t *top) table() []string {
	lines := append([]string{t.sums()}, t.grid(t.shown[t.first:min(t.first+t.rows(), len(t.shown))])...)
	below := t.below()
	for len(lines) < t.height-1-len(below) {
		lines = append(lines, "")
	}
	return append(append(lines, below...), t.keys())
}

// sums is whether the figures are those of now, what is shown of them, and what all
// processes use together.
func (t *top) sums() string {
	var live, cpu = 0, 0.0
	var memory int64
	var files, threads int32
	for _, u := range t.all {
		if u.Pid != 0 {
			live++
		}
		cpu += max(0, u.cpu)
		memory += u.Usage.GetMemoryBytes()
		files += u.Usage.GetDescriptors()
		threads += u.Usage.GetThreads()
	}
	var parts []string
	clock := t.last.at.Format("15:04:05")
	if t.silence != "" {
		parts, clock = append(parts, styled(bold+red, "of "+clock+": THE AGENT DOES NOT ANSWER")), ""
	}
	if t.filter != "" {
		const most = 20
		parts = append(parts, styled(bold+yellow, fmt.Sprintf("%d of %d shown, with \"%s\"", len(t.shown), len(t.all), ansi.Truncate(printable(t.filter), most, "…"))))
	}
	for _, part := range []string{plural(int32(live), "process", "processes"), fmt.Sprintf("CPU %.1f%%", cpu), "memory " + size(memory),
		clock, plural(files, "file", "files"), plural(threads, "thread", "threads")} {
		parts = append(parts, styled(bold, part))
	}
	return joined(t.width, parts)
}

// joined is as many of the parts as there is room for, the first one in any case.
func joined(width int, parts []string) string {
	const between = "   "
	line := ""
	for _, part := range parts {
		switch {
		case part == "":
		case line == "":
			line = part
		case ansi.StringWidth(line+between+part) > width:
			return line
		default:
			line += between + part
		}
	}
	return line
}

// below is what stands below the rows: where the mark is, with what is to be noted
// there, and then what is asked, or was said, with all of its words.
func (t *top) below() []string {
	const low = 8 // a terminal on which rows matter more
	room := 2
	if t.height < low {
		room = 1
	}
	message := t.message()
	message = message[:min(len(message), max(1, t.height-4))]
	lines := cut(inLines(t.where(), t.width), max(room-len(message), room-1), t.width)
	for len(lines)+len(message) < room {
		lines = append(lines, "")
	}
	return append(lines, message...)
}

// cut is at most n of the lines, with a mark if there are more.
func cut(lines []string, n, width int) []string {
	switch {
	case len(lines) <= n:
		return lines
	case n == 0:
		return nil
	default:
		return append(lines[:n-1], ansi.Truncate(strings.Join(lines[n-1:], " "), width, "…"))
	}
}

// where is which row is marked, and its note.
func (t *top) where() string {
	if len(t.shown) == 0 {
		return "nothing to show"
	}
	u := t.shown[t.at]
	where := fmt.Sprintf("row %d of %d: %s", t.at+1, len(t.shown), printable(u.Instance))
	if note := (&page{now: t.last.at}).note(u.Process); note != "" {
		where += ": " + printable(note)
	}
	return where
}

// message is what is asked, what was said, or what is wrong.
func (t *top) message() []string {
	switch {
	case t.question != nil:
		return t.told(bold+yellow, t.question.question+"?  y: yes, any other key: no")
	case t.typing:
		return []string{styled(bold, "show only: ") + printable(t.filter) + styled(marked, " ")}
	case t.problem != "":
		return t.told(red, t.problem)
	case t.said != "":
		return t.told("", t.said)
	case t.silence != "":
		return t.told(red, t.silence)
	case t.last.link != nil && !t.last.link.Connected:
		return t.told(red, "LAN manager: "+(&page{now: t.last.at}).link(t.last.link))
	default:
		return nil
	}
}

// told is a text with all of its words; no lines if there is none.
func (t *top) told(style, text string) []string {
	if text == "" {
		return nil
	}
	lines := inLines(printable(text), t.width)
	for i, line := range lines {
		lines[i] = styled(style, line)
	}
	return lines
}

// inLines breaks a text between words.
func inLines(text string, width int) []string {
	return strings.Split(ansi.Wrap(text, width, ""), "\n")
}

// keys tells the keys, as many as there is room for.
func (t *top) keys() string {
	if t.typing {
		return hint(t.width, "Enter", "done", "Esc", "show all")
	}
	return hint(t.width, "q", "quit", "?", "keys", "l", "log", "/", "filter", "x", "stop", "r", "restart", "s", "start",
		"c m …", "sort")
}

// helpScreen is the screen with the keys.
func (t *top) helpScreen() []string {
	lines := t.helpLines()[t.helpFrom:]
	lines = lines[:min(len(lines), max(0, t.height-1))]
	for len(lines) < t.height-1 {
		lines = append(lines, "")
	}
	return append(lines, hint(t.width, "any key", "back", "arrows PgUp PgDn", "the rest"))
}

// helpLines are the keys, in lines that the screen has room for.
func (t *top) helpLines() []string {
	return inLines(strings.TrimSuffix(topKeys, "\n"), t.width)
}

// hint is keys with what they do.
func hint(width int, keys ...string) string {
	var parts []string
	for i := 0; i+1 < len(keys); i += 2 {
		parts = append(parts, styled(bold, keys[i])+" "+styled(faint, keys[i+1]))
	}
	return joined(width, parts)
}

// gap is between two columns.
const gap = 2

// grid is the head and these rows, in as many columns as there is room for.
func (t *top) grid(rows []use) []string {
	p := &page{now: t.last.at}
	fitting := t.fitting(p)
	lines := make([]string, 0, 1+len(rows))
	head := make([]string, len(fitting))
	for i, f := range fitting {
		c := columns[f.column]
		head[i] = f.pad(c.heading(t.order, f.column))
	}
	lines = append(lines, styled(bold+faint, strings.Join(head, strings.Repeat(" ", gap))))
	for _, u := range rows {
		cells := make([]string, len(fitting))
		for i, f := range fitting {
			cell := f.pad(f.text(p, u))
			if u.Instance != t.selected && t.silence == "" && columns[f.column].title == "STATE" {
				cell = styled(colour(u), cell)
			}
			cells[i] = cell
		}
		line := strings.Join(cells, strings.Repeat(" ", gap))
		switch {
		case u.Instance == t.selected:
			line = styled(marked, line+strings.Repeat(" ", max(0, t.width-ansi.StringWidth(line))))
		case t.silence != "":
			line = styled(faint, line)
		}
		lines = append(lines, line)
	}
	return lines
}

// heading is the title, with a mark if the table is sorted by it.
func (c column) heading(o order, i int) string {
	switch {
	case o.by != i:
		return c.title
	case c.right != o.backwards:
		return c.title + "▼"
	default:
		return c.title + "▲"
	}
}

// colour tells the states apart in which a process serves, does not, and is not
// there.
func colour(u use) string {
	switch {
	case u.CrashLoop:
		return red
	case u.State == machineagentv1.ProcessState_PROCESS_STATE_READY:
		return green
	case u.State == machineagentv1.ProcessState_PROCESS_STATE_ENDED:
		return faint
	default:
		return yellow
	}
}

// fit is a column that there is room for.
type fit struct{ column, width int }

// text is what is in the cell of a process.
func (f fit) text(p *page, u use) string {
	text := printable(columns[f.column].cell(p, u))
	if text == "" {
		return "-"
	}
	return text
}

// pad gives a text the width of the column.
func (f fit) pad(text string) string {
	text = ansi.Truncate(text, f.width, "…")
	space := strings.Repeat(" ", f.width-ansi.StringWidth(text))
	if columns[f.column].right {
		return space + text
	}
	return text + space
}

// fitting is which columns there is room for, and how wide they are. The note has
// what the others leave, and long names do not push them out. The name and what the
// table is sorted by are always there, if only with their beginnings.
func (t *top) fitting(p *page) []fit {
	const leastNote = 12
	var all []fit
	for i, c := range columns {
		f := fit{i, ansi.StringWidth(c.title) + 1} // and the mark
		if c.key == "" {
			f.width--
		}
		for _, u := range t.shown {
			f.width = max(f.width, ansi.StringWidth(f.text(p, u)))
		}
		switch c.title {
		case "INSTANCE", "MODULE":
			f.width = min(f.width, max(12, t.width/4))
		case "NOTE":
			f.width = leastNote
		}
		all = append(all, f)
	}
	for width(all) > t.width {
		least := -1
		for i, f := range all {
			if i > 0 && f.column != t.order.by && (least < 0 || columns[f.column].rank > columns[all[least].column].rank) {
				least = i
			}
		}
		if least < 0 {
			break
		}
		all = slices.Delete(all, least, least+1)
	}
	const leastName = 4
	all[0].width = max(leastName, min(all[0].width, all[0].width+t.width-width(all)))
	if last := &all[len(all)-1]; columns[last.column].title == "NOTE" {
		last.width += t.width - width(all)
	}
	return all
}

func width(all []fit) int {
	sum := gap * (len(all) - 1)
	for _, f := range all {
		sum += f.width
	}
	return sum
}

// screen is the whole screen with a log.
func (v *logView) screen(width, height int) []string {
	title := "log of " + printable(v.instance)
	switch {
	case v.behind > 0:
		title += fmt.Sprintf(", %s before its end", plural(int32(v.behind), "line", "lines"))
	case !v.ended:
		title += ", followed"
	}
	lines := append([]string{styled(bold, title), ""}, v.view(width, logRows(height))...)
	for len(lines) < height-2 {
		lines = append(lines, "")
	}
	return append(lines, styled(red, printable(v.reason)), hint(width, "q", "back", "arrows PgUp PgDn Home", "look back", "End", "follow"))
}
