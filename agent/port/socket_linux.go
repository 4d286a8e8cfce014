package port

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// socket holds one port: a bare descriptor, so that thousands of them cost
// neither a goroutine nor the runtime's poller anything.
type socket int

const none socket = -1

// hold binds a port on all addresses of both families, without listening.
// SO_REUSEADDR lets the instance's own server, if it sets that too, bind and
// listen over it; a program that does not set it gets EADDRINUSE, and so do we
// where any program listens.
func hold(number int) (socket, error) { return bind(number, true) }

// holdAlone is hold as programs bind that do not set SO_REUSEADDR. It fails, as they
// do, also while the system remembers connections of that port that were closed on
// this side (TIME_WAIT, a minute).
func holdAlone(number int) (socket, error) { return bind(number, false) }

func bind(number int, reuse bool) (socket, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return bind4(number, reuse)
	}
	if err != nil {
		return none, err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
		unix.Close(fd)
		return none, err
	}
	return bindTo(fd, &unix.SockaddrInet6{Port: number}, reuse)
}

// bind4 is bind on a machine whose kernel has no IPv6.
func bind4(number int, reuse bool) (socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return none, err
	}
	return bindTo(fd, &unix.SockaddrInet4{Port: number}, reuse)
}

func bindTo(fd int, to unix.Sockaddr, reuse bool) (socket, error) {
	var err error
	if reuse {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, to)
	}
	if err != nil {
		unix.Close(fd)
		return none, err
	}
	return socket(fd), nil
}

// listen has connections wait on a held port. It fails like hold where another
// program listens.
func (s socket) listen() error { return unix.Listen(int(s), backlog) }

// inode is 0 without a socket.
func (s socket) inode() uint64 {
	var info unix.Stat_t
	if s == none || unix.Fstat(int(s), &info) != nil {
		return 0
	}
	return info.Ino
}

// dup opens the socket once more; nil if there is none.
func (s socket) dup() *os.File {
	if s == none {
		return nil
	}
	fd, err := unix.FcntlInt(uintptr(s), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "port")
}

// socketOf makes a socket of a file, which it closes. It does not ask for the file's
// Fd, which would have the children that share the socket block on it.
func socketOf(f *os.File) socket {
	defer f.Close()
	s := none
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if dup, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
				s = socket(dup)
			}
		})
	}
	return s
}

func (s socket) close() {
	if s != none {
		unix.Close(int(s))
	}
}

// inUse tells whether hold failed because another program has the port.
func inUse(err error) bool { return errors.Is(err, unix.EADDRINUSE) }
