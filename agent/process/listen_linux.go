package process

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Listener is a TCP socket that listens.
type Listener struct {
	Address netip.AddrPort // an unspecified address is all of its family
	Inode   uint64         // tells the socket from all others
	cgroup  uint64         // id of the one in which it was made; 0 unknown
}

// Listens tells whether the process pid holds a socket that listens on the TCP
// port, on whatever address. It needs the right to read the process's
// descriptors. The error is ErrGone if there is no such process.
func Listens(pid, port int) (bool, error) {
	found, err := Listeners(port)
	if err != nil || len(found) == 0 {
		return false, err
	}
	return holds(pid, found)
}

// Listens tells whether a process of the tree holds a socket that listens on
// the TCP port: a shell's server counts. Of an outside process only the leader
// counts.
func (p *Process) Listens(port int) (bool, error) {
	found, err := Listeners(port)
	if err != nil || len(found) == 0 {
		return false, err
	}
	return p.Owns(found)
}

// Owns tells whether a process of the tree holds one of these sockets, in the
// sense of Listens.
func (p *Process) Owns(sockets []Listener) (bool, error) {
	owned, err := p.Owned(sockets)
	return len(owned) > 0, err
}

// Owned are those of the sockets that a process of the tree holds; of an outside
// process only the leader counts. That one was made in the process's cgroup is
// enough; descriptors are looked at where that does not decide. With an error
// there may be others.
func (p *Process) Owned(sockets []Listener) ([]Listener, error) {
	owned := make([]Listener, 0, min(len(sockets), 3)) // as many as a child has ports
	var rest []Listener
	cgroup := p.cgroupID()
	for _, s := range sockets {
		if cgroup != 0 && s.cgroup == cgroup {
			owned = append(owned, s)
		} else {
			rest = append(rest, s)
		}
	}
	look := func(pids ...int) error {
		for _, pid := range pids {
			if len(rest) == 0 {
				return nil
			}
			held, err := socketsOf(pid)
			if pid == p.id.PID && err != nil && p.dead() {
				continue // the dead hold nothing
			}
			if err != nil && (p.kind == outside || !errors.Is(err, ErrGone)) {
				return err
			}
			rest = slices.DeleteFunc(rest, func(s Listener) bool {
				_, ours := held[s.Inode]
				if ours {
					owned = append(owned, s)
				}
				return ours
			})
		}
		return nil
	}
	if err := look(p.id.PID); err != nil || len(rest) == 0 || p.kind == outside {
		return owned, err
	}
	pids, err := p.pids()
	if err != nil {
		return owned, err
	}
	return owned, look(pids...)
}

// cgroupID is the kernel's number of the process's own cgroup: that of its
// directory. 0 is none. It is asked for once: while the process lives, the directory
// stays.
func (p *Process) cgroupID() uint64 {
	if id := p.cgroup.Load(); id != 0 || p.id.Cgroup == "" {
		return id
	}
	var info unix.Stat_t
	if unix.Stat(p.id.Cgroup, &info) != nil {
		return 0
	}
	p.cgroup.Store(info.Ino)
	return info.Ino
}

// pids are those of the tree, the dead and the dying among them.
func (p *Process) pids() ([]int, error) {
	if p.id.Cgroup != "" {
		return pidsIn(p.id.Cgroup), nil
	}
	return session(p.id.PID)
}

// holds tells whether one of the descriptors of pid is one of the sockets.
func holds(pid int, sockets []Listener) (bool, error) {
	held, err := socketsOf(pid)
	for _, s := range sockets {
		if _, ok := held[s.Inode]; ok {
			return true, nil
		}
	}
	return false, err
}

// Listeners are the sockets that listen on a TCP port; 0 is any. The kernel is
// asked for them only; where it can not be (a container may forbid it), its whole
// tables are read, which costs milliseconds on a busy machine.
func Listeners(port int) ([]Listener, error) {
	found, err := byNetlink(port, 1<<stateListen)
	if err == nil {
		return found, nil
	}
	return listenersByTable(port)
}

// Bound are the sockets that are bound to a TCP port, 0 is any, and do not listen, as
// the agent's own for a reserved port is. Linux tells of them from 6.8 on; before,
// there seem to be none.
func Bound(port int) ([]Listener, error) {
	found, err := byNetlink(port, 1<<stateBound)
	// Of these sockets the kernel tells whatever their port.
	return slices.DeleteFunc(found, func(s Listener) bool { return port != 0 && int(s.Address.Port()) != port }), err
}

// byNetlink asks for sockets in some states as sock_diag(7) describes.
func byNetlink(port int, states uint32) ([]Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var found []Listener
	buf := make([]byte, 32<<10) // what the kernel puts into one message at most
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := unix.Sendto(fd, diagRequest(family, port, states), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return nil, err
		}
		for done := false; !done; {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return nil, err
			}
			if found, done, err = diagReply(buf[:n], found); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

const (
	stateListen = 10 // TCP_LISTEN
	stateBound  = 13 // TCP_BOUND_INACTIVE
)

// diagRequest is a nlmsghdr and an inet_diag_req_v2.
func diagRequest(family byte, port int, states uint32) []byte {
	const size = unix.NLMSG_HDRLEN + 56
	b := make([]byte, 0, size)
	b = binary.NativeEndian.AppendUint32(b, size)
	b = binary.NativeEndian.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, make([]byte, 8)...) // sequence, port id
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, states)
	b = binary.BigEndian.AppendUint16(b, uint16(port))
	return b[:size]
}

// diagReply appends the sockets of the inet_diag_msg structures in b.
func diagReply(b []byte, found []Listener) (_ []Listener, done bool, err error) {
	const size = 72 // of an inet_diag_msg
	for len(b) >= unix.NLMSG_HDRLEN {
		length := int(binary.NativeEndian.Uint32(b))
		kind := binary.NativeEndian.Uint16(b[4:])
		switch {
		case kind == unix.NLMSG_DONE:
			return found, true, nil
		case kind == unix.NLMSG_ERROR, length < unix.NLMSG_HDRLEN+size, length > len(b):
			return nil, false, errors.New("the kernel does not tell of listening sockets")
		}
		found = append(found, diagListener(b[unix.NLMSG_HDRLEN:length]))
		b = b[min((length+3)&^3, len(b)):]
	}
	return found, false, nil
}

// diagListener reads an inet_diag_msg and the attributes behind it.
func diagListener(b []byte) Listener {
	const (
		port, address, inode, attributes = 4, 8, 68, 72
		cgroupID                         = 21 // INET_DIAG_CGROUP_ID
	)
	l := Listener{Inode: uint64(binary.NativeEndian.Uint32(b[inode:]))}
	ip := netip.AddrFrom16([16]byte(b[address : address+16]))
	if b[0] == unix.AF_INET {
		ip = netip.AddrFrom4([4]byte(b[address : address+4]))
	}
	l.Address = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[port:]))
	for b = b[attributes:]; len(b) >= unix.SizeofRtAttr; {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			break
		}
		if binary.NativeEndian.Uint16(b[2:]) == cgroupID && length == unix.SizeofRtAttr+8 {
			l.cgroup = binary.NativeEndian.Uint64(b[unix.SizeofRtAttr:])
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return l
}

// listenersByTable reads /proc/net/tcp and tcp6 (proc_pid_net(5)): number,
// address:port in hexadecimal, peer, state, ..., the inode as tenth. The address
// is words in the processor's order.
func listenersByTable(port int) ([]Listener, error) {
	var found []Listener
	state := fmt.Sprintf("%02X", stateListen)
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("can not see who listens on port %d: %w", port, err)
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != state {
				continue
			}
			address, ok := tableAddress(fields[1])
			inode, err := strconv.ParseUint(fields[9], 10, 64)
			if ok && err == nil && (port == 0 || int(address.Port()) == port) {
				found = append(found, Listener{Address: address, Inode: inode})
			}
		}
	}
	return found, nil
}

func tableAddress(text string) (netip.AddrPort, bool) {
	ip, port, _ := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	words, err2 := hex.DecodeString(ip)
	if err != nil || err2 != nil || len(words) != 4 && len(words) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(words); i += 4 {
		binary.NativeEndian.PutUint32(words[i:], binary.BigEndian.Uint32(words[i:]))
	}
	address, ok := netip.AddrFromSlice(words)
	return netip.AddrPortFrom(address, uint16(number)), ok
}
