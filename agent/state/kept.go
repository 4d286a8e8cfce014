package state

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// Kept is what outlives processes and boots.
type Kept struct {
	Holds   []string // instances that the operator stopped and holds on this machine
	Drained bool     // nothing is to be served on this machine
}

// keptFile is Kept in version 1 of the format.
type keptFile struct {
	Version int      `json:"version"`
	Holds   []string `json:"holds"`
	Drained bool     `json:"drained,omitempty"`
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
		err = errVersion(f.Version)
	}
	if err != nil {
		d := setAside(s.keptPath(), err)
		return Kept{}, &d
	}
	return Kept{Holds: f.Holds, Drained: f.Drained}, nil
}

// Keep writes k in place of what was kept before. It is on the disk when Keep
// returns.
func (s *Store) Keep(k Kept) error {
	data, err := seal(keptFile{Version: version, Holds: append([]string{}, k.Holds...), Drained: k.Drained})
	if err != nil {
		return err
	}
	return jsonfile.Write(s.keptPath(), data, true)
}
