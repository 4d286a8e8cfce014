package probe

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// ask tries a port of this machine, whether it accepts. On a local address
// the kernel answers within the system call, so that nobody has to wait in the
// poller; a thousand children that come up at once are asked some thousand
// times. If it does not answer at once, settled is false.
func ask(to netip.AddrPort) (settled bool, err error) {
	family, address := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if a := to.Addr().Unmap(); a.Is4() {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: a.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, address); err {
	case nil:
		return true, nil
	case unix.ECONNREFUSED:
		return true, err
	default: // under way, or something that a dial explains better
		return false, err
	}
}
