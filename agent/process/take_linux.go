package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Take makes copies of those of the sockets that a process of the tree holds: a
// descriptor of the caller's for each port. An agent before this one passed them
// to the process, and they outlive it that way. The kernel gives them to who may
// trace the process: root, and its own user unless the system forbids that
// (kernel.yama.ptrace_scope). With an error there may be some.
func (p *Process) Take(sockets []Listener) (fds map[int]int, err error) {
	fds = make(map[int]int)
	err = takeFrom(p.Main().PID, sockets, fds)
	if len(fds) == len(sockets) || err != nil && !errors.Is(err, ErrGone) {
		return fds, err
	}
	pids, err := p.pids() // the main one may have closed them behind the one that serves
	for _, pid := range pids {
		if err := takeFrom(pid, sockets, fds); err != nil && !errors.Is(err, ErrGone) {
			return fds, err
		}
	}
	return fds, err
}

// takeFrom takes those that are not in fds yet.
func takeFrom(pid int, sockets []Listener, fds map[int]int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it is gone, or a thread
	}
	defer unix.Close(pidfd)
	held, err := socketsOf(pid)
	if err != nil {
		return err
	}
	for _, s := range sockets {
		number := int(s.Address.Port())
		theirs, ok := held[s.Inode]
		if _, taken := fds[number]; taken || !ok {
			continue
		}
		fd, err := unix.PidfdGetfd(pidfd, theirs, 0) // close-on-exec by itself
		if err != nil {
			return fmt.Errorf("the kernel does not give the socket of port %d: %w", number, err)
		}
		var info unix.Stat_t
		if err := unix.Fstat(fd, &info); err != nil || info.Ino != s.Inode {
			unix.Close(fd) // it was another one by then
			continue
		}
		fds[number] = fd
	}
	return nil
}

// Holders tells in words which processes hold these sockets, by inode, as far as
// the kernel lets us see. It looks at every process of the machine.
func Holders(sockets []Listener) map[uint64]string {
	found := make(map[uint64]string)
	if len(sockets) == 0 {
		return found
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return found
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		held, err := socketsOf(pid)
		if err != nil {
			continue // gone, or not for us to see
		}
		for _, s := range sockets {
			if _, ok := held[s.Inode]; ok && found[s.Inode] == "" {
				found[s.Inode] = fmt.Sprintf("pid %d (%s)", pid, commandOf(pid))
			}
		}
	}
	return found
}

// commandOf is the name that the kernel has for a process.
func commandOf(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "gone by now"
	}
	return strings.TrimSpace(string(text))
}

// socketsOf are the descriptors of pid that are sockets, by their inodes. The
// error is ErrGone if there is no such process.
func socketsOf(pid int) (map[uint64]int, error) {
	path := fmt.Sprintf("/proc/%d/fd", pid)
	dir, err := os.Open(path)
	if err == nil {
		defer dir.Close()
		var names []string
		if names, err = dir.Readdirnames(-1); err == nil {
			return sockets(path, names), nil
		}
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("there is no process %d: %w", pid, ErrGone)
	}
	return nil, fmt.Errorf("can not see the sockets of process %d: %w", pid, err)
}

// sockets reads where the descriptors in a directory lead to.
func sockets(path string, names []string) map[uint64]int {
	all := make(map[uint64]int)
	link := make([]byte, 64)
	for _, name := range names {
		n, err := unix.Readlink(path+"/"+name, link)
		if err != nil {
			continue // closed meanwhile
		}
		const begin, end = "socket:[", "]"
		if n < len(begin+end) || string(link[:len(begin)]) != begin {
			continue
		}
		inode, err := strconv.ParseUint(string(link[len(begin):n-len(end)]), 10, 64)
		fd, err2 := strconv.Atoi(name)
		if err == nil && err2 == nil {
			all[inode] = fd
		}
	}
	return all
}
