package server

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// pathLimit is how long a socket's path may be: sun_path has 108 bytes, and the
// last is zero.
const pathLimit = 107

// beforeBind has the socket's file appear with a mode that lets only us in. The
// final one can not be had in this way: bind masks it with the process's umask.
func beforeBind(_, _ string, c syscall.RawConn) (err error) {
	if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
		return e
	}
	return err
}

// openToAll lets everyone connect to our socket at path. It changes the file that
// it has looked at, and no other that may have taken the path meanwhile.
func openToAll(path string) (fs.FileInfo, error) {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	file, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if file.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("it is %s by now", what(file))
	}
	return file, os.Chmod(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), 0o666)
}
