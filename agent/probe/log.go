package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
)

// maxLine is how much of a line is looked at.
const maxLine = 64 << 10

// Log asks whether a complete line of the file, from the byte position from on,
// matches; asked again it goes on where it was. A file that is shorter than what
// was read of it has been begun anew, and so is the reading.
func Log(name string, from int64, pattern *regexp.Regexp) Question {
	l := &lines{at: from}
	return Question{fmt.Sprintf("no line of its log matches %q", pattern), func(context.Context) error {
		var err error
		if l.file, err = os.Open(name); err != nil {
			return fmt.Errorf("its log can not be read: %w", err)
		}
		defer l.file.Close()
		return l.find(pattern)
	}}
}

// lines reads the complete lines of a file that grows.
type lines struct {
	file *os.File
	at   int64
	rest []byte // the line that is not complete
	last []byte // the last complete one
}

var errNoMatch = errors.New("it has logged nothing")

// find reads what there is, up to a match.
func (l *lines) find(pattern *regexp.Regexp) error {
	if info, err := l.file.Stat(); err == nil && info.Size() < l.at {
		l.at, l.rest = 0, nil
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := l.file.ReadAt(buf, l.at)
		l.at += int64(n)
		text := append(l.rest, buf[:n]...)
		for {
			line, rest, complete := bytes.Cut(text, []byte("\n"))
			if !complete {
				break
			}
			if pattern.Match(line) {
				return nil
			}
			l.last, text = bytes.Clone(line), rest
		}
		l.rest = bytes.Clone(text[:min(len(text), maxLine)])
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF):
			return err
		case l.last == nil:
			return errNoMatch
		default:
			return fmt.Errorf("the last line is %.200q", l.last)
		}
	}
}
