//go:build !windows

package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// privateListener lets nobody in but root and our own user.
type privateListener struct{ net.Listener }

// listenPrivate makes a Unix socket for root and our own user at path. What is
// there is removed only if it is a socket of ours on which nobody listens.
func listenPrivate(path string) (net.Listener, error) {
	if err := makeRoom(path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: closeToOthers}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "linux" {
		if err := os.Chmod(path, 0o600); err != nil {
			l.Close()
			return nil, err
		}
	}
	return privateListener{l}, nil
}

// makeRoom removes what a process of our pid and user has left behind.
func makeRoom(path string) error {
	file, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case file.Mode().Type() != fs.ModeSocket || int(file.Sys().(*syscall.Stat_t).Uid) != os.Geteuid():
		return fmt.Errorf("%s is there and is no socket of uid %d; remove it", path, os.Geteuid())
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return fmt.Errorf("somebody else serves %s, perhaps a process of this pid in a container that shares the directory", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// closeToOthers has the socket's file appear with a mode that lets only us in,
// where the mode of a socket that is not bound passes to its file.
func closeToOthers(_, _ string, c syscall.RawConn) (err error) {
	if runtime.GOOS != "linux" {
		return nil
	}
	if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
		return e
	}
	return err
}

// Accept hangs up on strangers, whom the file's mode may not keep out: it can be
// changed by whoever is our user.
func (l privateListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, known, err := peerUID(conn)
		if err == nil && (!known || uid == 0 || uid == os.Geteuid()) {
			return conn, nil
		}
		conn.Close()
	}
}
