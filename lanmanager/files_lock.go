package lanmanager

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// errLocked is what tryLock returns while somebody else has the lock.
var errLocked = errors.New("locked")

// lock takes the lock file in a directory until close. The operating system lets
// go of it when the LAN manager ends, however that happens. The file itself
// stays: removing it would let two LAN managers lock two files of one name.
func (f *files) lock(directory string) error {
	path := filepath.Join(directory, "lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	f.locks = append(f.locks, file)
	if err := tryLock(file); errors.Is(err, errLocked) {
		text, _ := os.ReadFile(path)
		return fmt.Errorf("another LAN manager, process %s, has %s",
			cmp.Or(strings.TrimSpace(string(text)), "unknown"), directory)
	} else if err != nil {
		return &os.PathError{Op: "lock", Path: path, Err: err}
	}
	err = file.Truncate(0) // the pid is for people
	if err == nil {
		_, err = file.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	}
	return err
}
