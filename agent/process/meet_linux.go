package process

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Met is the socket that a connection to the TCP port at host would meet, if any.
// The kernel finds it as it would for the connection, which costs the same however
// many sockets there are; a list of them does not.
func Met(host netip.Addr, port int) ([]Listener, error) {
	found, err := metByNetlink(host, port)
	if err == nil {
		return found, nil
	}
	all, err := Listeners(port)
	return Covering(all, host), err
}

func metByNetlink(host netip.Addr, port int) ([]Listener, error) {
	reply, err := diag.ask(meetRequest(host.Unmap(), port))
	if err != nil {
		return nil, err
	}
	if len(reply) >= unix.NLMSG_HDRLEN+4 && binary.NativeEndian.Uint16(reply[4:]) == unix.NLMSG_ERROR {
		errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(reply[unix.NLMSG_HDRLEN:])))
		if errno == unix.ENOENT {
			return nil, nil // nobody listens
		}
		return nil, errno
	}
	found, _, err := diagReply(reply, nil)
	return found, err
}

// diag is how the kernel is asked about single sockets. It is kept open, because
// what is asked at every check of health should not cost a socket each time.
var diag = diagSocket{fd: -1}

type diagSocket struct {
	sync.Mutex
	fd int // -1: none
}

// ask sends a request to which there is one short reply. The kernel answers within
// the call that asks.
func (d *diagSocket) ask(request []byte) (reply []byte, err error) {
	d.Lock()
	defer d.Unlock()
	if d.fd < 0 {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
		if err != nil {
			return nil, err
		}
		d.fd = fd
	}
	reply = make([]byte, 1<<9)
	n := 0
	if err = unix.Sendto(d.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err == nil {
		n, _, err = unix.Recvfrom(d.fd, reply, unix.MSG_DONTWAIT)
	}
	if err != nil {
		unix.Close(d.fd) // or its answer would be taken for that to the next request
		d.fd = -1
	}
	return reply[:n], err
}

// meetRequest is a nlmsghdr and an inet_diag_req_v2 for the socket that belongs to
// a pair of addresses; the peer's may be any that is not connected.
func meetRequest(host netip.Addr, port int) []byte {
	const size, id, source, target, cookie = unix.NLMSG_HDRLEN + 56, unix.NLMSG_HDRLEN + 8, 4, 20, 40
	b := make([]byte, size)
	binary.NativeEndian.PutUint32(b, size)
	binary.NativeEndian.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	b[unix.NLMSG_HDRLEN], b[unix.NLMSG_HDRLEN+1] = unix.AF_INET6, unix.IPPROTO_TCP
	if host.Is4() {
		b[unix.NLMSG_HDRLEN] = unix.AF_INET
	}
	binary.NativeEndian.PutUint32(b[unix.NLMSG_HDRLEN+4:], 1<<stateListen)
	binary.BigEndian.PutUint16(b[id:], uint16(port))
	copy(b[id+source:], host.AsSlice())
	copy(b[id+target:], host.AsSlice())
	binary.NativeEndian.PutUint64(b[id+cookie:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	return b
}
