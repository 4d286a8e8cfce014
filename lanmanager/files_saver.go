package lanmanager

import (
	"bytes"
	"context"
	"fmt"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// saver writes needs.runtime outside of the core. What is to be saved while it
// writes goes into the next writing, all of it at once. Its fields are the
// core's.
type saver struct {
	crew   *crew
	files  *files
	report func(problem)

	// What was wrong with the file when it was read. It is not overwritten before
	// that is mended: then repaired takes in what it holds.
	broken   error
	repaired func([]fields)

	writing bool
	waiting []func(error)
}

// save has the originals written as they are now, or are a little later, and
// calls saved in the core. After an error the next save tries again.
func (s *saver) save(o *originals, saved func(error)) {
	s.waiting = append(s.waiting, saved)
	if !s.writing {
		s.begin(o)
	}
}

func (s *saver) begin(o *originals) {
	s.writing = true
	if s.broken == nil {
		s.write(o)
		return
	}
	s.crew.outside(func(context.Context) func() {
		entries, p := s.files.loadRuntime()
		return func() {
			s.report(p)
			if s.broken = p.err; s.broken != nil {
				s.done(o, s.take(), fmt.Errorf("it would overwrite a file with mistakes; repair or remove it: %w", p.err))
				return
			}
			s.repaired(entries)
			s.write(o)
		}
	})
}

func (s *saver) write(o *originals) {
	answers, entries := s.take(), o.entries()
	s.crew.outside(func(context.Context) func() {
		err := jsonfile.Write(s.files.runtime, linewise(entries), true)
		return func() {
			s.report(problem{s.files.runtime, "needs were added or removed only until the LAN manager ends", err})
			s.done(o, answers, err)
		}
	})
}

func (s *saver) take() (answers []func(error)) {
	answers, s.waiting = s.waiting, nil
	return answers
}

// done answers, and goes on with what came in the meantime.
func (s *saver) done(o *originals, answers []func(error), err error) {
	for _, saved := range answers {
		saved(err)
	}
	s.writing = false
	if len(s.waiting) > 0 {
		s.begin(o)
	}
}

// linewise is a JSON array with an element a line.
func linewise(entries []fields) []byte {
	var text bytes.Buffer
	text.WriteByte('[')
	for i, entry := range entries {
		if i > 0 {
			text.WriteByte(',')
		}
		text.WriteString("\n  ")
		text.Write(marshal(entry))
	}
	text.WriteString("\n]\n")
	return text.Bytes()
}
