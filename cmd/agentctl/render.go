package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// page is an answer on its way to a human reader: rows of cells, aligned.
// Nothing that came from elsewhere can break a row or reach the terminal as
// an escape sequence.
type page struct {
	now    time.Time
	titles []string
	rows   [][]string
}

// head makes it a table.
func (p *page) head(titles ...string) { p.titles = titles }

// row adds a line. A page's rows all have the same number of cells. Empty
// cells are shown as "-".
func (p *page) row(cells ...string) { p.rows = append(p.rows, cells) }

// line adds a sentence.
func (p *page) line(format string, args ...any) { p.row(fmt.Sprintf(format, args...)) }

func (p *page) print(w io.Writer) error {
	t := &table{w: w}
	if p.titles != nil {
		t.head(p.titles)
	}
	for _, cells := range p.rows {
		t.add(cells)
	}
	return t.flush()
}

// write says that it is the answer that got lost, not the question.
func write(w io.Writer, text []byte) error {
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("the agent answered, but the answer can not be written: %w", err)
	}
	return nil
}

// printJSON prints a message in protojson, with the fields that have their
// default too, so that a script finds every field and list.
func printJSON(w io.Writer, m proto.Message) error {
	compact, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("the agent's answer is no JSON: %w", err)
	}
	// protojson varies its white space on purpose; json.Indent does not.
	var text bytes.Buffer
	if err := json.Indent(&text, compact, "", "  "); err != nil {
		return fmt.Errorf("the agent's answer is no JSON: %w", err)
	}
	text.WriteByte('\n')
	return write(w, text.Bytes())
}

// printable writes out whatever is not to be seen as it is.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// age is how long ago t was. Empty if t is unset.
func (p *page) age(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return brief(p.now.Sub(t.AsTime()))
}

// in is how long it is until t. Empty if t is unset or past.
func (p *page) in(t *timestamppb.Timestamp) string {
	if t == nil || !t.AsTime().After(p.now) {
		return ""
	}
	return "in " + brief((t.AsTime().Sub(p.now) + time.Second - 1).Truncate(time.Second))
}

// brief tells a time in the largest unit of which there are at least two.
func brief(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", max(d, 0)/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/day)
	}
}

// seconds tells processor time, more exactly as long as there is little of it.
func seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.2fs", d.Seconds())
	}
	return brief(d)
}

// size tells bytes in the largest unit of which there is one.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%dB", n)
	}
	amount, unit := float64(n)/(1<<10), 0
	for amount >= 1<<10 {
		amount, unit = amount/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f%ciB", amount, units[unit])
}

// word is the name of an enum's value without its prefix. Empty if it was not
// said. A value that is younger than this program is shown as a number.
func word(value fmt.Stringer, prefix string) string {
	w := strings.TrimPrefix(value.String(), prefix)
	if w == "UNSPECIFIED" {
		return ""
	}
	return w
}

// number leaves out 0.
func number(n int32) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(int(n))
}

// portList is like "tcp:15000 http:16000".
func portList(p *machineagentv1.Ports) string {
	var list []string
	for _, port := range []struct {
		protocol string
		number   int32
	}{{"tcp", p.GetTcp()}, {"http", p.GetHttp()}, {"ws", p.GetWs()}} {
		if port.number != 0 {
			list = append(list, fmt.Sprintf("%s:%d", port.protocol, port.number))
		}
	}
	return strings.Join(list, " ")
}

// plural is like "1 process" and "2 processes".
func plural(n int32, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// some are the first of so many names, and how many more there are.
func some(names []string, total int) string {
	const most = 8
	if total <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:min(most, len(names))], ", "), total-min(most, len(names)))
}
