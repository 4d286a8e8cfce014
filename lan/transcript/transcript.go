// Package transcript reads the recorded traffic of real AllexJS programs
// (lan/testdata/transcripts, lan/PROTOCOL.md section 15), so that tests can say
// the same and see whether they are answered the same. Only tests import it.
package transcript

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Kind says what a line of a transcript is.
type Kind int

// The kinds of lines.
const (
	Remark     Kind = iota // of whoever recorded it
	Open                   // a connection
	Close                  // of a connection
	FromClient             // a unit
	FromServer             // a unit
)

// Line is one line of a transcript, or one unit of a line with several. The
// SignalR envelope is taken off.
type Line struct {
	Number     int // in the file, from 1
	Kind       Kind
	Connection int // from 1; 0 for remarks
	Text       string
	ID         string // of the call that a unit is or belongs to, where it has one
}

// Read reads a transcript.
func Read(path string) ([]Line, error) {
	r := reader{owner: make(map[string]int)}
	err := each(path, r.add)
	return r.lines, err
}

// Frame is a frame of a connection as it was on the wire, with its envelope.
type Frame struct {
	Number int  // of its first line in the file, from 1
	Kind   Kind // FromClient or FromServer
	Text   string
}

// Frames reads the frames of a transcript, of all connections in one row.
func Frames(path string) ([]Frame, error) {
	var frames []Frame
	err := each(path, func(number int, text string) error {
		match := unitLine.FindStringSubmatch(text)
		if match == nil {
			return nil
		}
		body := strings.ReplaceAll(match[3], "<RS>", "\x1e")
		if match[2] != "" && len(frames) > 0 {
			frames[len(frames)-1].Text += "\x00" + body
			return nil
		}
		frames = append(frames, Frame{number, direction(match[1]), body})
		return nil
	})
	return frames, err
}

// each calls add with every line of a file.
func each(path string, add func(number int, text string) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		if err := add(n, lines.Text()); err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	return lines.Err()
}

// direction is what the recorders meant by their arrows.
func direction(arrow string) Kind {
	if arrow == ">" || arrow == "C>S" {
		return FromClient
	}
	return FromServer
}

// What the two recorders wrote: seconds, then who speaks, then what.
var (
	unitLine   = regexp.MustCompile(`^ *[0-9.]+ (?:#\d+ )?(>|<|C>S|S>C) (\(\+NUL\) )?(.*)$`)
	openLine   = regexp.MustCompile(`^ *[0-9.]+ (?:#\d+ UPGRADE|-- upgrade) `)
	closeLine  = regexp.MustCompile(`^ *[0-9.]+ -- closed `)
	remarkLine = regexp.MustCompile(`^ *[0-9.]+ ## (.*)$`)
)

type reader struct {
	lines []Line
	count int            // connections so far
	open  []int          // connections; who opens one speaks on it until it is closed
	owner map[string]int // connection of a call's id or of a session
}

func (r *reader) add(number int, text string) error {
	switch {
	case openLine.MatchString(text):
		r.count++
		r.open = append(r.open, r.count)
		r.lines = append(r.lines, Line{Number: number, Kind: Open, Connection: r.count})
	case closeLine.MatchString(text):
		r.lines = append(r.lines, Line{Number: number, Kind: Close, Connection: r.last()})
		r.open = r.open[:len(r.open)-1]
	case unitLine.MatchString(text):
		match := unitLine.FindStringSubmatch(text)
		units, err := strip(match[3])
		if err != nil {
			return err
		}
		for _, unit := range units {
			r.addUnit(number, direction(match[1]), unit)
		}
	default:
		if match := remarkLine.FindStringSubmatch(text); match != nil {
			text = match[1]
		}
		r.lines = append(r.lines, Line{Number: number, Kind: Remark, Text: text})
	}
	return nil
}

func (r *reader) last() int {
	if len(r.open) == 0 {
		return 0
	}
	return r.open[len(r.open)-1]
}

// addUnit finds the connection of a unit: the last one that was opened, unless
// the unit is about a call or a session of another.
func (r *reader) addUnit(number int, kind Kind, text string) {
	line := Line{Number: number, Kind: kind, Connection: r.last(), Text: text}
	var parts []json.RawMessage
	_ = json.Unmarshal([]byte(text), &parts)
	var words [2]string
	for i := range min(2, len(parts)) {
		_ = json.Unmarshal(parts[i], &words[i])
	}
	var inner []json.RawMessage
	if len(parts) > 1 {
		_ = json.Unmarshal(parts[1], &inner)
	}
	switch {
	case kind == FromClient && len(inner) > 0:
		line.ID = words[0]
		r.owner[line.ID] = line.Connection
	case words[0] == "f" && len(inner) > 1:
		_ = json.Unmarshal(inner[0], &line.ID)
	case words[0] == "oob" && len(inner) > 0:
		r.own(&line, string(inner[0]))
	case words[0] == "r" || words[0] == "e" || words[0] == "n":
		line.ID = words[1]
		r.own(&line, line.ID)
	}
	r.lines = append(r.lines, line)
}

func (r *reader) own(line *Line, name string) {
	if owner, ok := r.owner[name]; ok {
		line.Connection = owner
	} else {
		r.owner[name] = line.Connection
	}
}

// strip takes the SignalR envelope off (PROTOCOL section 1.3): messages that
// end in RS; those that carry no unit are left out.
func strip(text string) ([]string, error) {
	if !strings.HasSuffix(text, "<RS>") {
		return []string{text}, nil
	}
	var units []string
	for message := range strings.SplitSeq(strings.TrimSuffix(text, "<RS>"), "<RS>") {
		var invocation struct {
			Target    string            `json:"target"`
			Arguments []json.RawMessage `json:"arguments"`
		}
		if err := json.Unmarshal([]byte(message), &invocation); err != nil {
			return nil, err
		}
		if len(invocation.Arguments) == 0 {
			continue
		}
		unit := string(invocation.Arguments[0])
		if invocation.Target == "_" { // encoded twice, as an array of one
			var inner string
			var one []json.RawMessage
			if err := json.Unmarshal([]byte(unit), &inner); err != nil {
				return nil, err
			}
			if err := json.Unmarshal([]byte(inner), &one); err != nil {
				return nil, err
			}
			unit = string(one[0])
		}
		units = append(units, unit)
	}
	return units, nil
}
