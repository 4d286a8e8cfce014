package state

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/internal/lockfile"
)

const (
	execWithin = time.Second // from fork to exec, on a machine under load
	lockPause  = 5 * time.Millisecond
)

// lock takes the lock file at path until it is closed. No child has it for longer
// than from its fork to its exec: for so long the lock of an agent that was killed
// just then is waited for. Who has taken it just now writes its pid within it.
func lock(path string) (*os.File, error) {
	for wait := time.Duration(0); ; wait += lockPause {
		f, err := lockfile.Take(path)
		held, ok := errors.AsType[*lockfile.HeldError](err)
		switch {
		case !ok:
			return f, err
		case wait >= execWithin || held.PID != 0 && process.Exists(held.PID):
			return nil, &LockedError{Path: path, PID: held.PID}
		}
		time.Sleep(lockPause)
	}
}

// inherit takes over the lock that the program before us, in this process, has had
// at path.
func inherit(path string, lock *os.File) (*os.File, error) {
	there, err1 := os.Stat(path)
	has, err2 := lock.Stat()
	if err1 != nil || err2 != nil || !os.SameFile(has, there) {
		return nil, fmt.Errorf("%s is not the lock that the agent before has: another statedirectory needs a restart", path)
	}
	return lock, nil
}
