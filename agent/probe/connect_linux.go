package probe

import (
	"context"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A net.Dialer makes a dozen more calls of the system for a connection that is to
// last, which a thousand checks feel.

// dial connects to a port.
func dial(ctx context.Context, to netip.AddrPort) (connection, error) {
	fd, made, err := begin(to)
	if err != nil {
		return nil, err
	}
	socket := os.NewFile(uintptr(fd), to.String())
	if !made {
		if err := await(ctx, socket, to); err != nil {
			socket.Close()
			return nil, err
		}
	}
	return socket, nil
}

// accepts tells whether somebody accepts at a port. Most say so at once, and then the
// runtime's poller never hears of the connection.
func accepts(ctx context.Context, to netip.AddrPort) error {
	fd, made, err := begin(to)
	switch {
	case err != nil:
		return err
	case made:
		return os.NewSyscallError("close", unix.Close(fd))
	}
	socket := os.NewFile(uintptr(fd), to.String())
	defer socket.Close()
	return await(ctx, socket, to)
}

// begin begins to connect. The answer of a port of this machine is there when that
// returns, or a moment later when the machine is busy: then the connection is not yet
// made.
func begin(to netip.AddrPort) (fd int, made bool, err error) {
	family, address := place(to)
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, false, os.NewSyscallError("socket", err)
	}
	if err = unix.Connect(fd, address); err == unix.EINPROGRESS {
		err = unix.Connect(fd, address)
	}
	if err != nil && err != unix.EALREADY {
		unix.Close(fd)
		return 0, false, os.NewSyscallError("connect", err)
	}
	return fd, err == nil, nil
}

// await waits in the runtime's poller until a connection that was begun is made or
// refused.
func await(ctx context.Context, socket *os.File, to netip.AddrPort) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = socket.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	_, address := place(to)
	var failure error
	err = raw.Write(func(fd uintptr) bool {
		failure = unix.Connect(int(fd), address) // tells what has become of it
		return failure != unix.EALREADY
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("connect", failure)
}

func place(to netip.AddrPort) (family int, address unix.Sockaddr) {
	if at := to.Addr().Unmap(); at.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: at.As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}
