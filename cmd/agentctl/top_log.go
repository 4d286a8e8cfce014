package main

import (
	"context"
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// logLines is how many lines of a log that is followed are kept.
const logLines = 2000

// logView is the end of an instance's log, which grows while it is looked at.
type logView struct {
	instance string
	ctx      context.Context
	cancel   context.CancelFunc
	pieces   chan *machineagentv1.TailLogsResponse
	tail     tail

	lines  []string
	cutter lineCutter
	behind int // how many lines behind the last one are not looked at
	ended  bool
	reason string // why it has
}

type (
	// piece is some of the log that is followed.
	piece struct {
		of  *logView
		log *machineagentv1.TailLogsResponse
	}
	// logEnd is why a log is not followed any more.
	logEnd struct {
		of  *logView
		err error
	}
)

func newLogView(parent context.Context, c *client.Client, instance string) *logView {
	v := &logView{instance: instance, pieces: make(chan *machineagentv1.TailLogsResponse)}
	v.ctx, v.cancel = context.WithCancel(parent)
	v.tail = tail{
		client: c,
		request: &machineagentv1.TailLogsRequest{Instance: instance, Follow: true,
			Begin: &machineagentv1.TailLogsRequest_Lines{Lines: logLines / 4}},
		show: func(p *machineagentv1.TailLogsResponse) error {
			select {
			case v.pieces <- p:
				return nil
			case <-v.ctx.Done():
				return v.ctx.Err()
			}
		},
	}
	return v
}

// follow reads the log until it is left, and hands its pieces to next.
func (v *logView) follow() tea.Cmd {
	return func() tea.Msg { return logEnd{v, v.tail.run(v.ctx)} }
}

// next waits for a piece.
func (v *logView) next() tea.Cmd {
	return func() tea.Msg {
		select {
		case p := <-v.pieces:
			return piece{v, p}
		case <-v.ctx.Done():
			return nil
		}
	}
}

// take adds a piece, unless it is of a log that was left.
func (v *logView) take(p piece) tea.Cmd {
	if p.of != v {
		return nil
	}
	if p.log.Missing > 0 {
		if rest := v.cutter.leave(); rest != "" {
			v.add(rest)
		}
		v.add(fmt.Sprintf("-- %d bytes before here are not there any more --", p.log.Missing))
	}
	v.cutter.add(p.log.Data, func(line string, _ bool) { v.add(line) })
	return v.next()
}

// add adds a line that is plain.
func (v *logView) add(line string) {
	v.lines = append(v.lines, line)
	if v.behind > 0 {
		v.behind++ // what is looked at stays where it is
	}
	if more := len(v.lines) - logLines; more > 0 {
		v.lines = append(v.lines[:0], v.lines[more:]...)
		v.behind = min(v.behind, logLines)
	}
}

func (v *logView) end(e logEnd) {
	if e.of != v {
		return
	}
	v.ended = true
	if e.err != nil {
		v.reason = explain(e.err)
	}
}

// key moves through the log, and tells whether it is left.
func (v *logView) key(key string, width, height int) (leave bool) {
	page := logRows(height)
	switch key {
	case "q", "esc", "l", "enter":
		return true
	case "up", "k":
		v.behind++
	case "down", "j":
		v.behind--
	case "pgup":
		v.behind += page
	case "pgdown":
		v.behind -= page
	case "home", "g":
		v.behind = len(v.lines) // or as far as it goes
	case "end", "G":
		v.behind = 0
	}
	v.behind = max(0, min(v.behind, v.farthest(width, page)))
	return false
}

// logRows is for how many rows of a log there is room: its title, a line below that,
// why it has ended, and the keys are not among them.
func logRows(height int) int { return max(1, height-4) }

// farthest is how many lines are behind those that fill the rows from the beginning.
func (v *logView) farthest(width, rows int) int {
	for i, line := range v.lines {
		rows -= len(wrapped(line, width))
		switch {
		case rows == 0 || rows < 0 && i == 0:
			return len(v.lines) - 1 - i
		case rows < 0:
			return len(v.lines) - i
		}
	}
	return 0
}

func wrapped(line string, width int) []string {
	return strings.Split(ansi.Hardwrap(line, width, true), "\n")
}

// view is the end of the log as it is, or where the user has gone, in a rectangle.
func (v *logView) view(width, height int) []string {
	lines := v.lines
	if rest := v.cutter.text(); v.behind == 0 && rest != "" {
		lines = append(lines[:len(lines):len(lines)], rest)
	}
	var rows []string
	for i := len(lines) - 1 - v.behind; i >= 0 && len(rows) < height; i-- {
		rows = append(wrapped(lines[i], width), rows...)
	}
	return rows[max(0, len(rows)-height):]
}
