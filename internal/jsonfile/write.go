package jsonfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/allexgo/machine-agent/internal/fault"
)

// Write makes data the content of path, with mode 0600. Whoever reads path finds
// the old content or the new one, whatever happens in between: data goes to a
// temporary file in the same directory, which is then renamed. With sync that
// holds for a loss of power too, and the new content is on the disk when Write
// returns. Concurrent writers of one path do not harm each other; one of them
// wins.
func Write(path string, data []byte, sync bool) error {
	return write(path, data, sync, os.Rename)
}

// Create is Write for a path at which nothing may be yet: if something is, it is
// left as it is and the error is os.ErrExist.
func Create(path string, data []byte, sync bool) error {
	return write(path, data, sync, func(from, to string) error {
		return errors.Join(os.Link(from, to), os.Remove(from))
	})
}

// IsTemporary tells whether name, without its directory, is that of a temporary
// file of Write or Create. One that is found while nobody writes is left over
// from a crash.
func IsTemporary(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp")
}

func write(path string, data []byte, sync bool, place func(from, to string) error) error {
	directory, name := filepath.Split(path)
	directory = filepath.Clean(directory)
	f, err := os.CreateTemp(directory, "."+name+".*.tmp")
	if err != nil {
		return writeError(path, err)
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close(), fault.At(fault.FileWritten)); err == nil {
		err = place(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return writeError(path, err)
	}
	if sync {
		return syncDirectory(directory)
	}
	return nil
}

// writeError names path, and not the temporary file, which says nothing to
// anybody and is called otherwise each time.
func writeError(path string, err error) error {
	var p *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &p):
		err = p.Err
	case errors.As(err, &link):
		err = link.Err
	}
	return &fs.PathError{Op: "can not write", Path: path, Err: err}
}
