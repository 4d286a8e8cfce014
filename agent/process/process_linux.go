package process

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is a process that the agent started, took over or watches. It is safe
// for concurrent use.
type Process struct {
	id    Identity
	kind  kind
	pidfd *os.File // non-blocking, so that the runtime's poller waits for it
	raw   syscall.RawConn

	cgroup  atomic.Uint64 // of cgroupID; 0: not yet asked for
	reaping sync.Mutex
	exit    atomic.Pointer[Exit] // set by Reap, before it closes the pidfd

	following sync.Mutex
	main      *Process // nil: the leader
	woken     bool     // a wait for the leader is over by Follow
}

type kind uint8

const (
	child   kind = iota // ours to reap, with its tree
	adopted             // somebody else's to reap, with its tree
	outside             // somebody else's, and its tree is not ours
)

// Adopt takes over a process that an agent before this one started. The error
// is ErrGone if there is no such process any more; a pid that is another
// process by now is never touched. If the leader has ended and nobody has
// reaped it yet, Adopt succeeds and AwaitEnd returns at once.
func Adopt(id Identity) (*Process, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if id.BootID != boot {
		return nil, fmt.Errorf("process %d ran before the machine was started again: %w", id.PID, ErrGone)
	}
	p, err := open(id.PID, adopted)
	if err != nil {
		return nil, err
	}
	if p.id.StartTime != id.StartTime {
		p.Close()
		return nil, fmt.Errorf("pid %d is another process by now: %w", id.PID, ErrGone)
	}
	if p.kind == child {
		claim(p.id.PID)
	}
	p.id.Cgroup = id.Cgroup
	return p, nil
}

// Watch opens a process that the agent did not start. Its tree is never touched
// and it is never reaped. The error is ErrGone if it does not live.
func Watch(pid int) (*Process, error) {
	p, err := open(pid, outside)
	if err != nil {
		return nil, err
	}
	if p.dead() {
		p.Close()
		return nil, fmt.Errorf("process %d has ended: %w", pid, ErrGone)
	}
	return p, nil
}

// open opens pid and reads who it is. The start time is that of the process
// behind the pidfd: as long as that one is not reaped, nobody else has the pid.
func open(pid int, k kind) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE):
		return nil, fmt.Errorf("can not open process %d: %w; raise the limit of open files (LimitNOFILE=)", pid, err)
	case errors.Is(err, unix.ENOSYS):
		return nil, fmt.Errorf("can not open process %d: %w; Linux 5.4 or newer is needed", pid, err)
	case err != nil: // no such pid, or one of a thread
		return nil, fmt.Errorf("there is no process %d: %w", pid, ErrGone)
	}
	if k == adopted && isChild(fd) {
		k = child
	}
	p, err := own(pid, fd, k)
	if err != nil {
		return nil, err
	}
	if !p.unreaped() {
		p.Close()
		return nil, fmt.Errorf("process %d has ended: %w", pid, ErrGone)
	}
	return p, nil
}

// own makes a Process of a pidfd, which it takes over even if it fails.
func own(pid, fd int, k kind) (*Process, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("can not wait for process %d: %w", pid, err)
	}
	p := &Process{id: Identity{PID: pid}, kind: k, pidfd: os.NewFile(uintptr(fd), "pidfd")}
	boot, err := bootID()
	if err == nil {
		p.id.BootID = boot
		p.id.StartTime, err = startTime(pid)
	}
	if err == nil {
		p.raw, err = p.pidfd.SyscallConn()
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Identity is that of the leader; it never changes. Of a process that AdoptMain
// found without its leader it is that of the main one.
func (p *Process) Identity() Identity { return p.id }

// Child tells whether the agent itself is the parent, so that the exit status
// is certain.
func (p *Process) Child() bool { return p.kind == child }

// AwaitEnd blocks until the main process is dead, which is the leader unless Follow
// has said otherwise, without a thread and without reaping it. It returns ErrClosed
// if Close comes first.
func (p *Process) AwaitEnd() error {
	for {
		m := p.attend()
		err := m.await(unix.POLLIN)
		switch {
		case m != p.leading(): // by now it is another one
		case errors.Is(err, ErrGone): // reaped
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
	}
}

// await waits for events of the pidfd: POLLIN says dead, POLLHUP says reaped.
func (p *Process) await(events int16) error {
	err := p.raw.Read(func(fd uintptr) bool { return polled(int(fd), events) })
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return p.closed()
	}
	return err
}

// Signal signals the main process, and nobody else. The error is ErrGone if it is
// dead.
func (p *Process) Signal(sig syscall.Signal) error {
	p = p.leading()
	err := p.control(func(fd int) error {
		if polled(fd, unix.POLLIN) { // a zombie accepts signals
			return ErrGone
		}
		return unix.PidfdSendSignal(fd, sig, nil, 0)
	})
	switch {
	case errors.Is(err, unix.ESRCH):
		err = ErrGone
	case err == nil:
		return nil
	}
	return fmt.Errorf("can not send %s to process %d: %w", signalName(sig), p.id.PID, err)
}

// Close lets the process go: it lives on, and an AwaitEnd returns ErrClosed.
// Close may be called twice, and after Reap, which does the same.
func (p *Process) Close() {
	p.pidfd.Close()
	if m := p.leading(); m != p {
		m.pidfd.Close()
	}
}

// control calls f with the pidfd, which stays open meanwhile.
func (p *Process) control(f func(fd int) error) error {
	var err error
	if closed := p.raw.Control(func(fd uintptr) { err = f(int(fd)) }); closed != nil {
		return p.closed()
	}
	return err
}

// closed tells why the pidfd is closed.
func (p *Process) closed() error {
	if p.exit.Load() != nil {
		return ErrGone
	}
	return ErrClosed
}

func (p *Process) dead() bool {
	dead := false
	err := p.control(func(fd int) error { dead = polled(fd, unix.POLLIN); return nil })
	return err != nil || dead
}

func (p *Process) unreaped() bool {
	return p.control(func(fd int) error {
		if !exists(fd, 0) {
			return ErrGone
		}
		return nil
	}) == nil
}

// exists tells whether there is somebody whom a signal to fd would reach: with
// no flags the process, be it a zombie; with PIDFD_SIGNAL_PROCESS_GROUP a
// member of its group.
func exists(fd, flags int) bool {
	err := unix.PidfdSendSignal(fd, 0, nil, flags)
	return err == nil || errors.Is(err, unix.EPERM)
}

func polled(fd int, events int16) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		_, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return fds[0].Revents&events != 0
		}
	}
}
