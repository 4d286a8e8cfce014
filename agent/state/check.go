package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Check tells whether an agent of this program could go on with what is in the state
// directory dir, where another one may be at work. It changes nothing. A damaged
// file is no hindrance: Load and Kept set it aside.
func Check(dir string) error {
	s := &Store{dir: dir}
	files, err := filepath.Glob(filepath.Join(dir, "run", "*"+recordSuffix))
	if err != nil {
		return err
	}
	var unreadable []error
	for _, file := range append(files, s.keptPath()) {
		if _, err := os.Stat(file); err != nil {
			continue // gone meanwhile, or never there
		}
		var other versionError
		if err := s.look(file); errors.As(err, &other) {
			unreadable = append(unreadable, fmt.Errorf("%s can not be read: %w", file, other))
		}
	}
	return errors.Join(unreadable...)
}

// CheckDirectory tells why an agent of the user uid could not have dir for its state;
// nil if it is not there yet. It changes nothing. Errors: *OwnerError, and others.
func CheckDirectory(dir string, uid int) error {
	for _, d := range directories(dir) {
		info, err := os.Stat(d)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case !info.IsDir():
			return fmt.Errorf("%s is no directory; move it away, or name another one in statedirectory", d)
		}
		if err := checkOwner(d, uid); err != nil {
			return err
		}
	}
	return nil
}

// look reads a file without acting on what it finds.
func (s *Store) look(file string) error {
	if file != s.keptPath() {
		_, err := s.load(file)
		return err
	}
	data, err := readFile(file)
	if err != nil {
		return err
	}
	var f keptFile
	if err := unseal(data, &f); err != nil {
		return err
	}
	if f.Version != version {
		return versionError(f.Version)
	}
	return nil
}
