package main

import (
	"bytes"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// plain is a line without colours, and with everything else to be seen.
func plain(line string) string {
	line = strings.TrimSuffix(ansi.Strip(line), "\r")
	return printable(strings.ReplaceAll(line, "\t", "    "))
}

// lineBytes is how much of a line is waited for.
const lineBytes = 8 << 10

// lineCutter makes plain lines of a log that comes in pieces.
type lineCutter struct{ rest []byte }

// add takes a piece and hands on the lines that end in it. A line that is too long
// is handed on before it has ended.
func (c *lineCutter) add(piece []byte, take func(line string, ended bool)) {
	c.rest = append(c.rest, piece...)
	for {
		line, rest, ended := bytes.Cut(c.rest, []byte("\n"))
		if !ended {
			break
		}
		take(plain(string(line)), true)
		c.rest = rest
	}
	if len(c.rest) > lineBytes {
		take(c.leave(), false)
	}
}

// text is the line that has not ended yet.
func (c *lineCutter) text() string { return plain(string(c.rest)) }

// leave is that line, which is not waited for any more.
func (c *lineCutter) leave() string {
	text := c.text()
	c.rest = nil
	return text
}

// settled tells whether that line is now what it will be, whatever follows: none of
// it may be half of something else.
func (c *lineCutter) settled() bool { return c.text() == string(c.rest) }
