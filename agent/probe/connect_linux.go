package probe

import (
	"context"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// dial connects to a port and lets go at once. The answer of a port of this machine
// is there when connect returns, or a moment later when the machine is busy: no more
// than a socket is made for it, which matters to a thousand checks.
func dial(ctx context.Context, to netip.AddrPort) error {
	family, address := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if a := to.Addr().Unmap(); a.Is4() {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: a.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, address); err != unix.EINPROGRESS {
		unix.Close(fd)
		return err
	}
	return await(ctx, os.NewFile(uintptr(fd), "probe"))
}

// await waits in the runtime's poller until a connection is made or refused.
func await(ctx context.Context, socket *os.File) error {
	defer socket.Close()
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = socket.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	failure := 0
	err = raw.Write(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(fds, 0); n == 0 || err != nil {
			return false
		}
		failure, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		return true
	})
	if err == nil && failure != 0 {
		err = unix.Errno(failure)
	}
	return err
}
