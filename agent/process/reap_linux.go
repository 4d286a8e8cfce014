package process

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reapedWithin bounds the wait for the stranger who reaps an adopted process:
// an init takes up to two seconds.
const reapedWithin = 2500 * time.Millisecond

// Reap waits for the end, if it is not there yet, and tells how it was. It lets
// go of the pid: call it after Empty. Only an adopted process that a lazy init
// has to reap can make it wait, 2.5 s at most. Called again it says the same.
func (p *Process) Reap() Exit {
	p.reaping.Lock()
	defer p.reaping.Unlock()
	if exit := p.exit.Load(); exit != nil {
		return *exit
	}
	if p.AwaitEnd() != nil { // closed: nobody will know
		return Exit{Unknown: true}
	}
	var exit Exit
	m := p.leading()
	switch {
	case p.kind == child:
		exit = p.wait(0)
		disclaim(p.id.PID)
	case m == p:
		exit = p.inquire()
	}
	if m != p {
		exit = m.Reap()
	}
	p.exit.Store(&exit)
	p.pidfd.Close()
	return exit
}

// Seen tells how the process ended, as far as that is known before Reap. It does
// not wait and lets go of nothing: call it after AwaitEnd.
func (p *Process) Seen() Exit {
	p = p.leading()
	if exit := p.exit.Load(); exit != nil {
		return *exit
	}
	if p.kind == child {
		return p.wait(unix.WNOWAIT)
	}
	if exit, ok := p.zombieStatus(); ok {
		return exit
	}
	return p.remembered()
}

// wait asks how a child ended, and reaps it unless the options say WNOWAIT.
func (p *Process) wait(options int) Exit {
	var info unix.Siginfo
	err := p.control(func(fd int) error { return waitid(fd, &info, unix.WEXITED|unix.WNOHANG|options) })
	if err != nil || info.Signo == 0 {
		return Exit{Unknown: true}
	}
	// The status follows pid and uid in the union behind the three integers.
	const union = (3*4 + unsafe.Sizeof(uintptr(0)) - 1) &^ (unsafe.Sizeof(uintptr(0)) - 1)
	status := *(*int32)(unsafe.Add(unsafe.Pointer(&info), union+8))
	const exited = 1 // CLD_EXITED
	if info.Code == exited {
		return Exit{Code: int(status)}
	}
	return Exit{Signal: signalName(syscall.Signal(status))}
}

// inquire asks how a process ended that somebody else reaps. While it is a
// zombie its stat file tells; afterwards its pidfd may.
func (p *Process) inquire() Exit {
	if exit, ok := p.zombieStatus(); ok {
		return exit
	}
	if err := p.pidfd.SetReadDeadline(time.Now().Add(reapedWithin)); err != nil {
		return Exit{Unknown: true}
	}
	_ = p.await(unix.POLLHUP) // too late or not: the next answer counts
	return p.remembered()
}

// remembered is what the pidfd knows of a process that has been reaped, from
// Linux 6.15 on.
func (p *Process) remembered() Exit {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	err := p.control(func(fd int) error { return unix.IoctlPidfdInfo(fd, &info) })
	if err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return Exit{Unknown: true}
	}
	return exitOf(syscall.WaitStatus(info.Exit_code))
}

// zombieStatus reads the wait status of a zombie. The kernel shows 0 to those
// who may not see it, so that a 0 is believed only from one whose working
// directory we may look for (a zombie has none).
func (p *Process) zombieStatus() (Exit, bool) {
	s, err := readStat(p.id.PID)
	if err != nil || s.state != 'Z' || s.start != p.id.StartTime {
		return Exit{}, false
	}
	if s.exit == 0 {
		_, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.id.PID))
		if !errors.Is(err, os.ErrNotExist) || !p.unreaped() {
			return Exit{}, false
		}
	}
	return exitOf(s.exit), true
}

func exitOf(status syscall.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{Signal: signalName(status.Signal())}
	}
	return Exit{Code: status.ExitStatus()}
}

// isChild tells whether the process is ours to wait for.
func isChild(fd int) bool {
	var info unix.Siginfo
	return waitid(fd, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT) == nil
}

func waitid(fd int, info *unix.Siginfo, options int) error {
	for {
		if err := unix.Waitid(unix.P_PIDFD, fd, info, options, nil); err != unix.EINTR {
			return err
		}
	}
}
