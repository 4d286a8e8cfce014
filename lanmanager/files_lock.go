package lanmanager

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/allexgo/machine-agent/internal/lockfile"
)

// lock takes the lock file in a directory until close.
func (f *files) lock(directory string) error {
	file, err := lockfile.Take(filepath.Join(directory, "lock"))
	if held, ok := errors.AsType[*lockfile.HeldError](err); ok {
		who := "unknown"
		if held.PID != 0 {
			who = fmt.Sprint(held.PID)
		}
		return fmt.Errorf("another LAN manager, process %s, has %s", who, directory)
	} else if err != nil {
		return err
	}
	f.locks = append(f.locks, file)
	return nil
}
