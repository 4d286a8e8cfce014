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

// Recorded are the records of dir of processes that may still run, for who only wants
// to look: it changes nothing, and leaves out what it can not understand.
func Recorded(dir string) ([]Record, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(dir, "run"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, boot: boot}
	var records []Record
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) != recordSuffix {
			continue
		}
		if r, err := s.load(filepath.Join(dir, "run", entry.Name())); err == nil && r.Phase != Ended && !r.Gone {
			records = append(records, r)
		}
	}
	return records, nil
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
