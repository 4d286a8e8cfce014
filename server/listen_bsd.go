//go:build unix && !linux

package server

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// pathLimit is how long a socket's path may be: sun_path has 104 bytes, and the
// last is zero.
const pathLimit = 103

// beforeBind has nothing to do: the mode of a socket that is not bound yet does
// not pass to its file here.
func beforeBind(string, string, syscall.RawConn) error { return nil }

// openToAll lets everyone connect to our socket at path.
func openToAll(path string) (fs.FileInfo, error) {
	if err := unix.Fchmodat(unix.AT_FDCWD, path, 0o666, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	return os.Lstat(path)
}
