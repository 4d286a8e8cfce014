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
func hold(number int) (socket, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return hold4(number)
	}
	if err != nil {
		return none, err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
		unix.Close(fd)
		return none, err
	}
	return bind(fd, &unix.SockaddrInet6{Port: number})
}

// hold4 is hold on a machine whose kernel has no IPv6.
func hold4(number int) (socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return none, err
	}
	return bind(fd, &unix.SockaddrInet4{Port: number})
}

func bind(fd int, to unix.Sockaddr) (socket, error) {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
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
