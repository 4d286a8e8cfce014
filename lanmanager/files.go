package lanmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// files are the paths of the LAN manager's files (PROTOCOL section 11).
type files struct{ needs, runtime, nat string }

// openFiles makes .allexlanmanager in the directory, which must be there, and
// those of the files that are absent.
func openFiles(directory string) (*files, error) {
	directory = filepath.Join(directory, ".allexlanmanager")
	if err := os.Mkdir(directory, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("the LAN manager can not have its directory: %w; start it in a directory that it may write", err)
	}
	f := &files{
		needs:   filepath.Join(directory, "needs"),
		runtime: filepath.Join(directory, "needs.runtime"),
		nat:     filepath.Join(directory, "nat"),
	}
	defaults := map[string]string{
		f.needs:   `[{"modulename":"allex_timeservice","instancename":"Time","propertyhash":{}}]`,
		f.runtime: `[]`,
		f.nat:     `[{"iaddress":"192.168.1.1","iport":12345,"eaddress":"1.2.3.4","eport":80}]`,
	}
	for path, content := range defaults {
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := jsonfile.Create(path, []byte(content+"\n"), true); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("%w; start the LAN manager in a directory that it may write", err)
		}
	}
	return f, nil
}

// read returns the elements of the array in a file. With an error it returns
// those that could be read nevertheless.
func (f *files) read(path string) (elements []json.RawMessage, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	err = jsonfile.Decode(path, text, &elements)
	return elements, err
}

// saver writes needs.runtime outside of the core. What is to be saved while it
// writes goes into the next writing, all of it at once.
type saver struct {
	crew   *crew
	log    hclog.Logger
	path   string
	broken error // the file can not be read, so it must not be overwritten

	writing bool
	waiting []func(error)
}

// save has the originals written as they are now, or are a little later, and
// calls saved in the core.
func (s *saver) save(o *originals, saved func(error)) {
	if s.broken != nil {
		saved(fmt.Errorf("repair or remove this file and start the LAN manager again: %w", s.broken))
		return
	}
	s.waiting = append(s.waiting, saved)
	if !s.writing {
		s.write(o)
	}
}

func (s *saver) write(o *originals) {
	answers, entries := s.waiting, o.entries()
	s.writing, s.waiting = true, nil
	s.crew.outside(func(context.Context) func() {
		err := jsonfile.Write(s.path, linewise(entries), true)
		return func() {
			if err != nil {
				s.log.Error("needs that were added or removed are not saved", "error", err)
			}
			for _, saved := range answers {
				saved(err)
			}
			s.writing = false
			if len(s.waiting) > 0 {
				s.write(o)
			}
		}
	})
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
