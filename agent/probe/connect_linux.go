package probe

import (
	"context"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// dial connects to a port. A net.Dialer makes a dozen more calls of the system for a
// connection that is to last, which a thousand checks feel.
func dial(ctx context.Context, to netip.AddrPort) (connection, error) {
	family, address := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if a := to.Addr().Unmap(); a.Is4() {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: a.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = unix.Connect(fd, address)
	if err == unix.EINPROGRESS {
		// The answer of a port of this machine is there when connect returns, or a
		// moment later when the machine is busy.
		var made bool
		if made, err = settled(fd); !made && err == nil {
			return await(ctx, os.NewFile(uintptr(fd), to.String()))
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	return os.NewFile(uintptr(fd), to.String()), nil
}

// settled tells whether a connection is made; the error says why it never will be.
func settled(fd int) (made bool, err error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(fds, 0); n == 0 || err != nil {
		return false, nil
	}
	failure, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && failure != 0 {
		err = unix.Errno(failure)
	}
	return err == nil, err
}

// await waits in the runtime's poller until a connection is made or refused.
func await(ctx context.Context, socket *os.File) (connection, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		socket.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = socket.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	made, failure := false, error(nil)
	err = raw.Write(func(fd uintptr) bool {
		made, failure = settled(int(fd))
		return made || failure != nil
	})
	if err == nil && failure != nil {
		err = os.NewSyscallError("connect", failure)
	}
	if err != nil {
		socket.Close()
		return nil, err
	}
	return socket, nil
}
