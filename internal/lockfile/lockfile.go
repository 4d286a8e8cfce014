// Package lockfile keeps a directory to one process at a time, by a lock on a file
// that tells people who has it.
package lockfile

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// HeldError says that another process has the lock.
type HeldError struct {
	Path string // of the lock file
	PID  int    // what it tells of the process that has it; 0: nothing
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return "another process has " + e.Path
	}
	return fmt.Sprintf("process %d has %s", e.PID, e.Path)
}

// errLocked is what tryLock returns while somebody else has the lock.
var errLocked = errors.New("locked")

// Take takes the lock file at path until it is closed, or returns a *HeldError at
// once. The operating system lets go of it when the process ends, however that
// happens. The file itself stays: removing it would let two processes lock two files
// of one name.
func Take(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := take(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func take(f *os.File) error {
	if err := tryLock(f); errors.Is(err, errLocked) {
		return &HeldError{f.Name(), holder(f.Name())}
	} else if err != nil {
		return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	return err
}

// holder is the pid in the lock file; 0 if there is none.
func holder(path string) int {
	data, _ := os.ReadFile(path)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return max(pid, 0)
}
