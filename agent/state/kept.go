package state

import (
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// Kept is what outlives processes and boots.
type Kept struct {
	Holds   []string // instances that the operator stopped and holds on this machine
	Drained bool     // nothing is to be served on this machine
	Loops   []Loop   // instances in a crash loop
}

// Loop is an instance in a crash loop.
type Loop struct {
	Instance string        `json:"instance"`
	Module   string        `json:"module"`
	Failures int           `json:"failures"` // in a row
	Since    time.Time     `json:"since"`    // of the first of them
	Until    time.Time     `json:"until"`    // before which it does not start again
	Reason   string        `json:"reason"`   // of the last
	Exit     *process.Exit `json:"exit,omitempty"`
}

// keptFile is Kept in version 1 of the format.
type keptFile struct {
	Version int      `json:"version"`
	Holds   []string `json:"holds"`
	Drained bool     `json:"drained,omitempty"`
	Loops   []Loop   `json:"loops,omitempty"`
}

func (s *Store) keptPath() string { return filepath.Join(s.dir, "kept.json") }

// Kept returns what Keep wrote last; nothing if it never did. If the file can not
// be read it is set aside, Kept is empty and the error a *Damaged: the agent can
// go on, but what the operator wanted is lost.
func (s *Store) Kept() (Kept, error) {
	data, err := readFile(s.keptPath())
	if errors.Is(err, fs.ErrNotExist) {
		return Kept{}, nil
	}
	var f keptFile
	if err == nil {
		err = unseal(data, &f)
	}
	if err == nil && f.Version != version {
		err = versionError(f.Version)
	}
	if err != nil {
		d := setAside(s.keptPath(), err)
		return Kept{}, &d
	}
	return Kept{Holds: f.Holds, Drained: f.Drained, Loops: f.Loops}, nil
}

// holdsRoom is how many bytes of the file the names of held instances may take, beside
// the loops.
const holdsRoom = 448 << 10

// RoomFor tells whether so many holds can be kept.
func RoomFor(holds []string) bool {
	text, err := json.Marshal(holds)
	return err == nil && len(text) <= holdsRoom
}

// Keep writes k, for whose holds there must be room, in place of what was kept before.
// It is on the disk when Keep returns; after an error it is owed to it (Run). Of the
// loops only the first are written if there are so many that the file could not be read
// again; without them a verdict is lost, and no hold.
func (s *Store) Keep(k Kept) error {
	data, err := seal(keptFile{Version: version, Holds: append([]string{}, k.Holds...), Drained: k.Drained, Loops: fitting(k.Loops)})
	if err != nil {
		return err
	}
	return s.write(s.kept, s.keptPath(), true, func() error { return jsonfile.Write(s.keptPath(), data, true) })
}

// fitting are the first loops that take up to half of a file.
func fitting(loops []Loop) []Loop {
	size := 0
	for n, l := range loops {
		text, err := json.Marshal(l)
		if size += len(text) + 1; err != nil || size > maxFile/2 {
			return loops[:n]
		}
	}
	return loops
}
