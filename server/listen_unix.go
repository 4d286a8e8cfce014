//go:build unix

package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/agent/process"
)

// listener is a Unix socket that is ours: its file, and the lock beside it, go
// when it is closed.
type listener struct {
	*net.UnixListener
	path string
	file fs.FileInfo // the socket's file, to know it again
	lock *lock
	once sync.Once
	err  error
	// kept is set when the socket is to outlive us: the next program has it.
	kept   atomic.Bool
	unmet  sync.WaitGroup // connections that the server has not looked at
	parked chan struct{}  // closed when no connection is accepted any more
	closed chan struct{}
}

// newListener makes one of a socket whose file and lock are ours.
func newListener(l *net.UnixListener, path string, file fs.FileInfo, lock *lock) *listener {
	l.SetUnlinkOnClose(false) // Close does it, with more care
	return &listener{UnixListener: l, path: path, file: file, lock: lock, parked: make(chan struct{}), closed: make(chan struct{})}
}

// accepted is a connection that the server has not looked at; met is called when it
// does.
type accepted struct {
	*net.UnixConn
	met func()
}

func (c *accepted) meet() { c.met() }

func (c *accepted) Close() error {
	c.met()
	return c.UnixConn.Close()
}

// Accept waits for a connection, and once the listener is to be parked, for its Close.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.AcceptUnix()
	switch {
	case err == nil:
		l.unmet.Add(1)
		return &accepted{c, sync.OnceFunc(l.unmet.Done)}, nil
	case l.kept.Load() && errors.Is(err, os.ErrDeadlineExceeded):
		close(l.parked)
		<-l.closed
	}
	return nil, err
}

// park has later callers wait in a socket that is kept, and waits until the server has
// met all others: one that it would not look at any more it would cut off.
func (l *listener) park() {
	if !l.kept.Load() {
		return
	}
	_ = l.SetDeadline(time.Unix(1, 0))
	select {
	case <-l.parked:
		l.unmet.Wait()
	case <-l.closed:
	}
}

// Listen takes the Unix socket at the absolute path socket, for every local user
// to connect to: rights are a matter of each call. Who takes a socket holds a
// lock beside it (path + ".lock") as long as it serves, so that of two agents
// that start together one gets it.
//
// What is at the path is removed only if it is a socket of our own user on which
// nobody listens. A live socket, one of another user (also for root), and what is
// no socket at all are left alone. Every error is a *SocketError, which names who
// has it, if anyone, and the cure.
//
// Close removes the socket if it is still the one that was made here.
func Listen(socket string) (net.Listener, error) {
	for wait := time.Duration(0); ; wait += forkPause {
		l, err := listen(socket, os.Geteuid())
		if e, ok := errors.AsType[*SocketError](err); !ok || !e.passing || wait >= execWithin {
			return l, err
		}
		time.Sleep(forkPause)
	}
}

// An agent that was killed between the fork and the exec of a child has left the
// child its socket and its lock for that long. One that has just taken a lock writes
// its pid within it.
const (
	execWithin = time.Second
	forkPause  = 5 * time.Millisecond
)

// listen is Listen for the user uid.
func listen(socket string, uid int) (net.Listener, error) {
	if !filepath.IsAbs(socket) {
		return nil, &SocketError{Path: socket, UID: -1, Problem: "is not an absolute path", Cure: elsewhere}
	}
	if len(socket) > pathLimit {
		return nil, &SocketError{Path: socket, UID: -1,
			Problem: fmt.Sprintf("the path has %d bytes, and the operating system takes at most %d", len(socket), pathLimit),
			Cure:    `set "socket" in the agent's configuration to a shorter path`}
	}
	lock, err := takeLock(socket, uid)
	if err != nil {
		return nil, err
	}
	return bind(socket, uid, lock)
}

// bind makes the socket whose lock we have. With an error the lock is released.
func bind(socket string, uid int, lock *lock) (_ net.Listener, err error) {
	defer func() {
		if err != nil {
			lock.release()
		}
	}()
	if err := makeRoom(socket, uid); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: beforeBind}
	l, err := config.Listen(context.Background(), "unix", socket)
	if err != nil {
		return nil, &SocketError{Path: socket, UID: -1, Problem: "can not be made", Cure: elsewhere, Err: reason(err)}
	}
	ul := l.(*net.UnixListener)
	ul.SetUnlinkOnClose(false)
	file, err := openToAll(socket)
	if err != nil {
		ul.Close()
		return nil, &SocketError{Path: socket, UID: -1, Problem: "can not be opened to callers",
			Cure: "see that nobody else changes that directory", Err: reason(err)}
	}
	return newListener(ul, socket, file, lock), nil
}

// Close stops listening and removes what Listen made. It may be called twice.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		if l.kept.Load() {
			l.err = errors.Join(l.UnixListener.Close(), l.lock.file.Close())
			return
		}
		removeSame(l.path, l.file) // while it is bound: so long its inode is not used again
		l.err = l.UnixListener.Close()
		l.lock.release()
	})
	return l.err
}

// Files are what the program that this process is about to become gets to Inherit, of
// a listener of Listen.
func Files(l net.Listener) (socket, lock syscall.Conn, err error) {
	ours, ok := l.(*listener)
	if !ok {
		return nil, nil, errors.ErrUnsupported
	}
	return ours.UnixListener, ours.lock.file, nil
}

// Keep has Close leave the socket and its lock where they are, for the program that
// has been given their Files. Whoever connects meanwhile waits.
func Keep(l net.Listener) { l.(*listener).kept.Store(true) }

// Inherit is Listen with what a program had before it became us, of which it takes
// both files, also if it fails.
func Inherit(path string, socket, lockFile *os.File) (net.Listener, error) {
	defer socket.Close()
	held, err := os.Lstat(path + lockSuffix)
	if err == nil {
		var has fs.FileInfo
		if has, err = lockFile.Stat(); err == nil && !os.SameFile(held, has) {
			err = errors.New("it is not the lock of the agent before: another socket needs a restart")
		}
	}
	if err != nil {
		lockFile.Close()
		return nil, &SocketError{Path: path, UID: -1, Problem: "can not be taken over from the agent before", Cure: "start the agent anew", Err: err}
	}
	lock := &lock{path: path + lockSuffix, file: lockFile}
	file, err := os.Lstat(path)
	if err != nil || file.Mode().Type() != fs.ModeSocket { // somebody has removed it: nobody can reach the old one
		return bind(path, os.Geteuid(), lock)
	}
	l, err := net.FileListener(socket)
	if err != nil {
		lock.release()
		return nil, &SocketError{Path: path, UID: -1, Problem: "can not be taken over from the agent before", Cure: "start the agent anew", Err: reason(err)}
	}
	return newListener(l.(*net.UnixListener), path, file, lock), nil
}

// makeRoom removes what a dead agent of ours left at the path, and nothing else.
func makeRoom(socket string, uid int) error {
	file, err := os.Lstat(socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return &SocketError{Path: socket, UID: -1, Problem: "can not be looked at", Cure: elsewhere, Err: reason(err)}
	case file.Mode().Type() != fs.ModeSocket:
		return &SocketError{Path: socket, UID: owner(file), Problem: "is " + what(file) + ", not a socket",
			Cure: "move it away, or " + elsewhere}
	}
	if owner(file) != uid {
		return foreign(socket, "it", file, uid)
	}
	pid, live, err := listening(socket)
	switch {
	case live:
		return inUse(socket, pid, uid)
	case err != nil:
		return &SocketError{Path: socket, UID: owner(file), Problem: "somebody may be listening there",
			Cure: "end that program, or " + elsewhere, Err: reason(err)}
	}
	if err := os.Remove(socket); err != nil {
		return &SocketError{Path: socket, UID: uid, Problem: "was left behind and can not be removed",
			Cure: "remove it, or " + elsewhere, Err: reason(err)}
	}
	return nil
}

// listening tells whether, and which, process listens on a socket. If err is not
// nil, that is not certain.
func listening(socket string) (pid int, live bool, err error) {
	c, err := net.DialTimeout("unix", socket, time.Second)
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return 0, false, nil
	case err != nil:
		return 0, false, err
	}
	defer c.Close()
	who, err := identify(c)
	if err != nil {
		return 0, true, nil // it has ended since
	}
	who.pin.release()
	return who.pid, true, nil
}

func inUse(socket string, pid, uid int) error {
	by := "another agent"
	if pid > 0 {
		by = fmt.Sprintf("process %d", pid)
	}
	return &SocketError{Path: socket, PID: pid, UID: uid, passing: pid == 0 || !process.Exists(pid),
		Problem: fmt.Sprintf("%s of uid %d serves it", by, uid),
		Cure:    "end that process, or " + elsewhere}
}

// foreign is about a file of another user: which names it, the socket or its
// lock.
func foreign(socket, which string, file fs.FileInfo, uid int) error {
	e := &SocketError{Path: socket, UID: owner(file),
		Problem: fmt.Sprintf("%s belongs to uid %d, and we are uid %d", which, owner(file), uid),
		Cure:    fmt.Sprintf("if nobody uses it, have uid %d or root remove it, or %s", owner(file), elsewhere)}
	if pid, live, _ := listening(socket); live {
		e.PID = pid
		e.Problem += fmt.Sprintf("; process %d serves the socket", pid)
		e.Cure = "end that process, or " + elsewhere
	}
	return e
}

// removeSame removes the file at path if it is still that one.
func removeSame(path string, file fs.FileInfo) {
	if now, err := os.Lstat(path); err == nil && os.SameFile(now, file) {
		os.Remove(path)
	}
}

// owner is the uid of a file's owner.
func owner(file fs.FileInfo) int { return int(file.Sys().(*syscall.Stat_t).Uid) }

// what names a file's kind.
func what(file fs.FileInfo) string {
	switch file.Mode().Type() {
	case 0:
		return "a regular file"
	case fs.ModeDir:
		return "a directory"
	case fs.ModeSymlink:
		return "a symbolic link"
	}
	return "a special file"
}

// reason is the bare error of the operating system: the path has been named.
func reason(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
