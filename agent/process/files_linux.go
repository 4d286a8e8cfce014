package process

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/agent/process/launch"
	"github.com/allexgo/machine-agent/internal/disk"
)

// files are the descriptors that a start needs, and what a child gets of them.
type files struct {
	passed     []uintptr // to the child, in the order of its descriptors
	owned      []int     // to be closed
	executable int       // the checked one, ours; 0: none
	status     *os.File  // where the launcher tells a failure; nil: there is no launcher
	order      launch.Order
}

// openFiles opens them. The caller closes them also after an error.
func openFiles(s Spec) (*files, error) {
	f := &files{}
	for _, open := range []func(Spec) error{f.stdio, f.sockets, f.verified, f.launcher} {
		if err := open(s); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (f *files) close() {
	for _, fd := range f.owned {
		unix.Close(fd)
	}
	if f.status != nil {
		f.status.Close()
	}
}

func (f *files) own(fd int) int {
	f.owned = append(f.owned, fd)
	return fd
}

// stdio opens the descriptors 0, 1 and 2 of the child.
func (f *files) stdio(s Spec) error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return explain(s, fmt.Errorf("open %s: %w", os.DevNull, err))
	}
	output := f.own(null)
	switch {
	case s.Output != nil:
		output = int(s.Output.Fd())
	case s.Log != "":
		output, err = unix.Open(s.Log, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC, 0o640)
		if err != nil {
			return &StartError{Instance: s.Instance, Command: s.Argv[0],
				Problem: fmt.Sprintf("its log file %s can not be opened: %v", s.Log, err),
				Cure:    cmp.Or(disk.Cure(err), "make its directory and let the agent write there"), Err: err}
		}
		f.own(output)
		if s.User != nil { // so that it may open /dev/stdout; without the right to give it away it may not
			_ = unix.Fchown(output, s.User.UID, s.User.GID)
		}
	}
	f.passed = []uintptr{uintptr(null), uintptr(output), uintptr(output)}
	return nil
}

// sockets passes them on behind the descriptors of stdio, where those who take
// them look for them.
func (f *files) sockets(s Spec) error {
	for _, socket := range s.Sockets {
		f.pass(socket.FD)
		f.order.Sockets = append(f.order.Sockets, socket.Name)
	}
	return nil
}

// verified opens the executable and sees to it that it is the one it should be.
// What is executed is what was opened, whatever its name leads to by then.
func (f *files) verified(s Spec) error {
	if s.SHA256 == nil {
		return nil
	}
	refuse := func(problem string, err error) error {
		return &StartError{Instance: s.Instance, Command: s.Argv[0], Problem: problem,
			Cure: checksumCure, Err: err}
	}
	file, err := os.Open(s.Argv[0])
	if err != nil {
		return refuse(unreadable(err), err)
	}
	defer file.Close()
	if problem, err := checksum(file, s.SHA256); err != nil {
		return refuse(problem, err)
	}
	// Far from the small numbers, to which fork moves what it passes.
	const high = 64
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, high)
	if err != nil {
		return explain(s, fmt.Errorf("descriptor of the executable: %w", err))
	}
	f.executable = f.own(fd)
	return nil
}

// launcher makes the order for the launcher, if one is needed.
func (f *files) launcher(s Spec) error {
	if s.Limits.none() && len(s.Sockets) == 0 {
		return nil
	}
	if err := unix.Access(s.Launcher, unix.X_OK); err != nil {
		return &StartError{Instance: s.Instance, Command: s.Argv[0], Err: err,
			Problem: fmt.Sprintf("its limits are set and its sockets passed by agentexec, and %q can not be executed: %v", s.Launcher, err),
			Cure:    "install agentexec beside agentd, or take the limits and the portmode \"passed\" out of the module"}
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return explain(s, fmt.Errorf("pipe from its launcher: %w", err))
	}
	f.status = os.NewFile(uintptr(pipe[0]), "launcher")
	f.order = launch.Order{Resources: s.Limits.Resources, Nice: s.Limits.Nice, Umask: s.Limits.Umask,
		OOMScore: s.Limits.OOMScore, User: s.User, Sockets: f.order.Sockets, Status: f.pass(f.own(pipe[1]))}
	if f.executable != 0 {
		f.order.Executable = f.pass(f.executable)
	}
	return nil
}

// pass passes a descriptor on and returns its number in the child.
func (f *files) pass(fd int) int {
	f.passed = append(f.passed, uintptr(fd))
	return len(f.passed) - 1
}

// command is what fork executes, with what arguments.
func (f *files) command(s Spec) (path string, argv []string) {
	switch {
	case f.status != nil:
		return s.Launcher, f.order.Args(s.Argv)
	case f.executable != 0:
		return "/proc/self/fd/" + strconv.Itoa(f.executable), s.Argv
	default:
		return s.Argv[0], s.Argv
	}
}

// launchWithin is how long a launcher may take. It takes a millisecond.
const launchWithin = 10 * time.Second

// launched waits until the launcher has become the command, and returns what it
// could not do.
func (f *files) launched() error {
	if f.status == nil {
		return nil
	}
	for _, fd := range f.owned { // the pipe ends when the last writer has closed it
		unix.Close(fd)
	}
	f.owned = nil
	_ = f.status.SetReadDeadline(time.Now().Add(launchWithin))
	const most = 4 << 10
	said, err := io.ReadAll(io.LimitReader(f.status, most))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("agentexec has not become it within %s", launchWithin)
	case len(said) > 0:
		return errors.New(string(said))
	}
	return nil
}

func credential(u *User) *syscall.Credential {
	c := &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}
	for _, group := range u.Groups {
		c.Groups = append(c.Groups, uint32(group))
	}
	return c
}
