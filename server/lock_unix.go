//go:build unix

package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lock is the right to make and remove a socket: a flock on the file beside it,
// which holds our pid for people. The kernel lets it go when we end, however.
type lock struct {
	path string
	file *os.File
}

const lockSuffix = ".lock"

// takeLock takes the lock of a socket for the user uid, without waiting.
func takeLock(socket string, uid int) (*lock, error) {
	path := socket + lockSuffix
	for {
		// Not blocking, lest a FIFO that somebody put there holds us up.
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, noLock(socket, uid, err)
		}
		l, err := lockFile(socket, f, uid)
		if l != nil {
			return l, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
		// Its holder removed the file between our open and our lock: what we
		// have locked nobody else can see any more.
	}
}

// lockFile locks f, the socket's lock file; nil and no error if it has been
// removed.
func lockFile(socket string, f *os.File, uid int) (*lock, error) {
	file, err := f.Stat()
	if err != nil {
		return nil, noLock(socket, uid, err)
	}
	switch {
	case !file.Mode().IsRegular():
		return nil, notALock(socket, file)
	case owner(file) != uid:
		return nil, foreign(socket, "its lock "+f.Name(), file, uid)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		text, _ := io.ReadAll(io.LimitReader(f, 32))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return nil, inUse(socket, pid, uid)
	} else if err != nil {
		return nil, noLock(socket, uid, err)
	}
	if now, err := os.Lstat(f.Name()); err != nil || !os.SameFile(now, file) {
		return nil, nil
	}
	// For people only: that the disk is full is no reason not to serve.
	f.Truncate(0)
	f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return &lock{path: f.Name(), file: f}, nil
}

// noLock says why the lock of a socket can not be had.
func noLock(socket string, uid int, err error) error {
	path := socket + lockSuffix
	if file, lookErr := os.Lstat(path); lookErr == nil {
		switch {
		case owner(file) != uid:
			return foreign(socket, "its lock "+path, file, uid)
		case !file.Mode().IsRegular():
			return notALock(socket, file)
		}
	}
	return &SocketError{Path: socket, UID: -1, Problem: "its lock " + path + " can not be made", Err: reason(err),
		Cure: fmt.Sprintf("see that %s is a directory in which uid %d may make files, or %s", filepath.Dir(path), uid, elsewhere)}
}

func notALock(socket string, file fs.FileInfo) error {
	return &SocketError{Path: socket, UID: owner(file), Problem: "where its lock " + socket + lockSuffix + " should be there is " + what(file),
		Cure: "move that away, or " + elsewhere}
}

// release lets the lock go. The file is removed first, while nobody else can
// have the lock, so that nothing is left that would keep another user from the
// socket; takeLock notices when it has locked a file that is removed.
func (l *lock) release() {
	if file, err := l.file.Stat(); err == nil {
		removeSame(l.path, file)
	}
	l.file.Close()
}
