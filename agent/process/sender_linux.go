package process

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// CgroupID is the kernel's number of the process's own cgroup; 0 if it has none.
func (p *Process) CgroupID() uint64 { return p.cgroupID() }

// CgroupBehind is the kernel's number of the cgroup of the process behind a
// pidfd, also of one that is gone (Linux 6.15). 0 is unknown.
func CgroupBehind(pidfd int) uint64 {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_CGROUPID | unix.PIDFD_INFO_EXIT}
	if unix.IoctlPidfdInfo(pidfd, &info) != nil || info.Mask&unix.PIDFD_INFO_CGROUPID == 0 {
		return 0
	}
	return info.Cgroupid
}

// LineageBehind is LineageOf for a process that was pid when the pidfd was made.
// The error is ErrGone if it has been reaped.
func LineageBehind(pidfd, pid int) (Lineage, error) {
	l, err := LineageOf(pid)
	if err == nil && !exists(pidfd, 0) { // else the pid was its own all the time
		return Lineage{}, fmt.Errorf("process %d has ended: %w", pid, ErrGone)
	}
	return l, err
}
