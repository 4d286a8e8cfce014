//go:build !linux

package process

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
)

// Process is a child of this agent. It is safe for concurrent use.
//
// These systems have no pidfd and no wait without reaping, so that the leader
// is reaped when its end is seen, and nothing is certain about its tree
// afterwards: only the leader is ever signalled.
type Process struct {
	id    Identity
	child *os.Process
	ended chan struct{} // closed after exit was set
	exit  Exit
	close func()
	gone  chan struct{} // closed by Close
}

// Start starts s.Argv in a session (Windows: a process group) of its own. The
// goroutine that waits for the child ends with it, even after Close. A Spec
// with a Cgroup is refused.
func Start(s Spec) (*Process, error) {
	switch {
	case s.Cgroup != "":
		return nil, unsupported("cgroups")
	case s.User != nil, !s.Limits.none(), s.Limits.Controllers() != nil, s.SHA256 != nil, s.Sockets != nil:
		return nil, unsupported("user, limits, sha256 and sockets of a process")
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, startError(s, err)
	}
	defer null.Close()
	output := null
	if s.Output != nil {
		output = s.Output
	} else if s.Log != "" {
		if output, err = os.OpenFile(s.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640); err != nil {
			return nil, startError(s, err)
		}
		defer output.Close()
	}
	env := s.Env
	if env == nil {
		env = []string{} // nil would inherit ours
	}
	child, err := os.StartProcess(s.Argv[0], s.Argv, &os.ProcAttr{Dir: s.Directory, Env: env,
		Files: []*os.File{null, output, output}, Sys: ownSession()})
	if err != nil {
		return nil, startError(s, err)
	}
	p := &Process{id: Identity{PID: child.Pid}, child: child, ended: make(chan struct{}), gone: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.gone) })
	go p.wait()
	return p, nil
}

func startError(s Spec, err error) error {
	return &StartError{Instance: s.Instance, Command: s.Argv[0], Problem: err.Error(), Err: err}
}

func (p *Process) wait() {
	defer close(p.ended)
	state, err := p.child.Wait()
	if err != nil {
		p.exit = Exit{Unknown: true}
		return
	}
	p.exit = Exit{Code: state.ExitCode()}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		p.exit = Exit{Signal: signalName(status.Signal())}
	}
}

// Adopt is not possible: without a start time no pid is certain.
func Adopt(Identity) (*Process, error) { return nil, unsupported("adoption of processes") }

// Watch is not possible: see Adopt.
func Watch(int) (*Process, error) { return nil, unsupported("watching of outside processes") }

// AdoptMain is not possible: see Adopt.
func AdoptMain(Identity, Identity) (*Process, error) { return Adopt(Identity{}) }

// Follow is not possible: see Adopt.
func (p *Process) Follow(int) error { return unsupported("another main process") }

// Main is Identity.
func (p *Process) Main() Identity { return p.id }

// Lives tells whether the leader lives.
func (p *Process) Lives() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Identity has the pid only.
func (p *Process) Identity() Identity { return p.id }

// Child is always true.
func (p *Process) Child() bool { return true }

// AwaitEnd blocks until the leader has ended; ErrClosed after Close.
func (p *Process) AwaitEnd() error {
	select {
	case <-p.gone:
		return ErrClosed
	case <-p.ended:
		return nil
	}
}

// Empty does nothing: the leader is reaped by now, and its id may be anybody's.
func (p *Process) Empty(context.Context) (left []int, err error) { return nil, nil }

// Reap waits for the end and tells how it was.
func (p *Process) Reap() Exit {
	<-p.ended
	return p.exit
}

// Seen is Reap: see Process.
func (p *Process) Seen() Exit { return p.Reap() }

// Signal signals the leader. On Windows any signal ends it.
func (p *Process) Signal(sig syscall.Signal) error {
	err := p.child.Signal(sig)
	if errors.Is(err, errors.ErrUnsupported) || isWindows {
		err = p.child.Kill()
	}
	if errors.Is(err, os.ErrProcessDone) {
		return ErrGone
	}
	return err
}

// KillTree ends the leader.
func (p *Process) KillTree() error { return p.Signal(syscall.SIGKILL) }

// Close lets the process go; it lives on.
func (p *Process) Close() { p.close() }

// Listens can not be known.
func (p *Process) Listens(port int) (bool, error) { return Listens(p.id.PID, port) }

// Lineage is a pid: where a process comes from can not be known.
type Lineage int

// LineageOf returns pid.
func LineageOf(pid int) (Lineage, error) { return Lineage(pid), nil }

// Within tells whether the process is the leader of id.
func (l Lineage) Within(id Identity) bool { return int(l) == id.PID }

// Cgroups are a thing of Linux.
func Cgroups(string) (root string, err error) { return "", unsupported("cgroups") }

// RemoveCgroups has none to remove.
func RemoveCgroups(string) error { return nil }

// Controller is a thing of Linux.
func Controller(string, string) error { return unsupported("limits of cgroups") }

// EmptyCgroup has none to empty.
func EmptyCgroup(context.Context, string) (left []int, err error) { return nil, nil }

// Sampler measures nothing here.
type Sampler struct{}

// Usage can not be known.
func (*Sampler) Usage(*Process) (Usage, error) {
	return Usage{}, unsupported("asking for what a process uses")
}

// Listener is nothing here.
type Listener struct {
	Address netip.AddrPort
	Inode   uint64
}

// Listeners can not be known.
func Listeners(int) ([]Listener, error) { return nil, unsupported("asking for listening sockets") }

// Met can not be known.
func Met(netip.Addr, int) ([]Listener, error) { return Listeners(0) }

// Owns can not be known.
func (p *Process) Owns([]Listener) (bool, error) {
	return false, unsupported("asking for a socket's owner")
}

// Marked is a process with a certain entry in its environment.
type Marked struct {
	Identity    Identity
	Leader      bool
	Environment []string
}

// FindMarked can not be done.
func FindMarked(string) ([]Marked, error) { return nil, unsupported("looking into environments") }

// Owned can not be known.
func (p *Process) Owned([]Listener) ([]Listener, error) {
	return nil, unsupported("asking for a socket's owner")
}

// Bound can not be known.
func Bound(int) ([]Listener, error) { return nil, unsupported("asking for bound sockets") }

// Holders can not be known.
func Holders([]Listener) map[uint64]string { return nil }

// Take can not be done.
func (p *Process) Take([]Listener) (fds map[int]int, err error) {
	return nil, unsupported("taking sockets of a process")
}

// Listens can not be known.
func Listens(int, int) (bool, error) { return false, unsupported("asking for a socket's owner") }

func unsupported(what string) error {
	return fmt.Errorf("%s on this operating system: %w", what, errors.ErrUnsupported)
}

// CgroupID is 0: cgroups are a thing of Linux.
func (p *Process) CgroupID() uint64 { return 0 }

// Aside runs f.
func Aside(f func() error) error { return f() }

// ReapStrangers does nothing.
func ReapStrangers(context.Context) error { return nil }
