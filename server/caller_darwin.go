package server

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// pin is not to be had: this system has no descriptor for a process. A dead
// caller's connection in the hands of a process that it forked passes for its
// own.
type pin struct{}

func (*pin) gone() bool { return false }
func (*pin) release()   {}

// identifyFD asks the kernel who called connect on the other end of fd.
func identifyFD(fd int) (*caller, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("LOCAL_PEERCRED: %w", err)
	}
	pid, err := unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	if err != nil {
		return nil, fmt.Errorf("LOCAL_PEERPID: %w", err)
	}
	return &caller{pid: pid, uid: int(cred.Uid)}, nil
}
