package server

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// pin holds a caller's process by a pidfd: its number can be given to another
// process, the pidfd can not.
type pin struct {
	mu sync.RWMutex // so that no call polls a descriptor that is somebody else's by now
	fd int          // -1 after release
}

// identifyFD asks the kernel who called connect on the other end of fd.
func identifyFD(fd int) (*caller, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	who := &caller{pid: int(cred.Pid), uid: int(cred.Uid)}
	if who.pid <= 0 {
		return who, nil // it lives in another pid namespace
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) {
		// Before Linux 6.5. A pid that was given to another process since the
		// connect is not noticed here, one that is given later is.
		pidfd, err = unix.PidfdOpen(who.pid, 0)
	}
	switch {
	case err == nil:
		who.pin = &pin{fd: pidfd}
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM):
		// Before Linux 5.3, or forbidden to us: its end will not be seen.
	default:
		return nil, fmt.Errorf("no hold on process %d: %w", who.pid, err) // most likely it is gone
	}
	return who, nil
}

// gone tells whether the process has ended. Without a pin it never says so; when
// it can not find out, it does.
func (p *pin) gone() bool {
	if p == nil {
		return false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.fd < 0 {
		return true
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, 0)
		if err != unix.EINTR {
			return n != 0 || err != nil
		}
	}
}

// release lets the process go; it may be called twice.
func (p *pin) release() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd >= 0 {
		unix.Close(p.fd)
	}
	p.fd = -1
}
