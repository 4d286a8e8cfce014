package state

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/allexgo/machine-agent/agent/process"
)

// errLocked is what tryLock returns while somebody else has the lock.
var errLocked = errors.New("locked")

// lock takes the lock file at path until it is closed. The operating system lets
// go of it when the agent ends, however that happens, and no child has it for
// longer than from its fork to its exec: for so long the lock of an agent that was
// killed just then is waited for. The file itself stays: removing it would let two
// agents lock two files of one name.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = tryLock(f)
	for wait := time.Duration(0); errors.Is(err, errLocked) && wait < execWithin && gone(holder(path)); wait += lockPause {
		time.Sleep(lockPause)
		err = tryLock(f)
	}
	if err != nil {
		f.Close()
		if errors.Is(err, errLocked) {
			return nil, &LockedError{Path: path, PID: holder(path)}
		}
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	// The pid is for people and LockedError.
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
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

const (
	execWithin = time.Second // from fork to exec, on a machine under load
	lockPause  = 5 * time.Millisecond
)

// gone tells whether the agent that wrote its pid into the lock has ended.
func gone(pid int) bool { return pid != 0 && !process.Exists(pid) }

// holder is the pid in the lock file; 0 if there is none.
func holder(path string) int {
	data, _ := os.ReadFile(path)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return max(pid, 0)
}
