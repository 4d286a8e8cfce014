package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Listens tells whether the process pid holds a socket that listens on the TCP
// port, on whatever address. It needs the right to read the process's
// descriptors. The error is ErrGone if there is no such process.
func Listens(pid, port int) (bool, error) {
	inodes, err := listeners(port)
	if err != nil || len(inodes) == 0 {
		return false, err
	}
	return holds(pid, inodes)
}

// Listens tells whether a process of the tree holds a socket that listens on
// the TCP port: a shell's server counts. Of an outside process only the leader
// counts.
func (p *Process) Listens(port int) (bool, error) {
	inodes, err := listeners(port)
	if err != nil || len(inodes) == 0 {
		return false, err
	}
	if found, err := holds(p.id.PID, inodes); found || p.kind == outside {
		return found, err
	}
	pids, err := p.pids()
	if err != nil {
		return false, err
	}
	for _, pid := range pids {
		found, err := holds(pid, inodes)
		if found || err != nil && !errors.Is(err, ErrGone) {
			return found, err
		}
	}
	return false, nil
}

// pids are those of the tree, the dead and the dying among them.
func (p *Process) pids() ([]int, error) {
	if p.id.Cgroup != "" {
		return pidsIn(p.id.Cgroup), nil
	}
	return session(p.id.PID)
}

// holds tells whether one of the descriptors of pid is one of the sockets.
func holds(pid int, inodes []uint64) (bool, error) {
	path := fmt.Sprintf("/proc/%d/fd", pid)
	dir, err := os.Open(path)
	if err == nil {
		defer dir.Close()
		var names []string
		if names, err = dir.Readdirnames(-1); err == nil {
			return anySocket(path, names, inodes), nil
		}
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return false, fmt.Errorf("there is no process %d: %w", pid, ErrGone)
	}
	return false, fmt.Errorf("can not see the sockets of process %d: %w", pid, err)
}

func anySocket(path string, names []string, inodes []uint64) bool {
	for _, name := range names {
		link, err := os.Readlink(path + "/" + name)
		if err != nil {
			continue // closed meanwhile
		}
		for _, inode := range inodes {
			if link == fmt.Sprintf("socket:[%d]", inode) {
				return true
			}
		}
	}
	return false
}

// listeners are the inodes of the sockets that listen on a TCP port. The kernel
// is asked for that port only; where it can not be (a container may forbid it),
// its whole tables are read, which costs milliseconds on a busy machine.
func listeners(port int) ([]uint64, error) {
	inodes, err := listenersByNetlink(port)
	if err == nil {
		return inodes, nil
	}
	return listenersByTable(port)
}

// listenersByNetlink asks as sock_diag(7) describes.
func listenersByNetlink(port int) ([]uint64, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var inodes []uint64
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := unix.Sendto(fd, diagRequest(family, port), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return nil, err
		}
		for done := false; !done; {
			buf := make([]byte, 16<<10)
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return nil, err
			}
			if inodes, done, err = diagReply(buf[:n], inodes); err != nil {
				return nil, err
			}
		}
	}
	return inodes, nil
}

const stateListen = 10 // TCP_LISTEN

// diagRequest is a nlmsghdr and an inet_diag_req_v2.
func diagRequest(family byte, port int) []byte {
	const size = unix.NLMSG_HDRLEN + 56
	b := make([]byte, 0, size)
	b = binary.NativeEndian.AppendUint32(b, size)
	b = binary.NativeEndian.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, make([]byte, 8)...) // sequence, port id
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, 1<<stateListen)
	b = binary.BigEndian.AppendUint16(b, uint16(port))
	return b[:size]
}

// diagReply appends the inodes of the inet_diag_msg structures in b.
func diagReply(b []byte, inodes []uint64) (_ []uint64, done bool, err error) {
	const inodeAt = unix.NLMSG_HDRLEN + 68
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		kind := binary.NativeEndian.Uint16(b[4:])
		switch {
		case kind == unix.NLMSG_DONE:
			return inodes, true, nil
		case kind == unix.NLMSG_ERROR, size < inodeAt+4, size > len(b):
			return nil, false, errors.New("the kernel does not tell of listening sockets")
		}
		inodes = append(inodes, uint64(binary.NativeEndian.Uint32(b[inodeAt:])))
		b = b[min((size+3)&^3, len(b)):]
	}
	return inodes, false, nil
}

// listenersByTable reads /proc/net/tcp and tcp6 (proc_pid_net(5)): number,
// address:port in hexadecimal, peer, state, ..., the inode as tenth.
func listenersByTable(port int) ([]uint64, error) {
	var inodes []uint64
	suffix, state := fmt.Sprintf(":%04X", port), fmt.Sprintf("%02X", stateListen)
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
			if len(fields) < 10 || fields[3] != state || !strings.HasSuffix(fields[1], suffix) {
				continue
			}
			if inode, err := strconv.ParseUint(fields[9], 10, 64); err == nil {
				inodes = append(inodes, inode)
			}
		}
	}
	return inodes, nil
}
