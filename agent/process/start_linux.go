package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Start starts s.Argv in a session and group of its own, in s.Cgroup from its
// first instruction, with the environment s.Env and nothing else. Standard
// input is empty; output and errors are appended to s.Log by the child itself,
// so that they survive the agent. A *StartError says what is wrong and what to
// do; then nothing is left of the try.
func Start(s Spec) (*Process, error) {
	if len(s.Argv) == 0 || !filepath.IsAbs(s.Argv[0]) {
		return nil, &StartError{Instance: s.Instance, Command: fmt.Sprintf("%q", s.Argv),
			Problem: "the command is not an absolute path", Err: unix.EINVAL}
	}
	pidfd := -1
	sys := &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	stdio, err := openStdio(s)
	if err != nil {
		return nil, err
	}
	defer stdio.close()
	if s.Cgroup != "" {
		dir, err := makeCgroup(s)
		if err != nil {
			return nil, err
		}
		defer unix.Close(dir)
		sys.UseCgroupFD, sys.CgroupFD = true, dir
	}
	pid, err := spawn(s, stdio, sys)
	if err != nil {
		if s.Cgroup != "" {
			_ = unix.Rmdir(s.Cgroup)
		}
		return nil, explain(s, err)
	}
	return started(s, pid, pidfd)
}

// spawn is fork and exec. A program that was written a moment ago can be busy
// still, because a fork elsewhere holds the writer's descriptor until its exec.
func spawn(s Spec, files stdio, sys *syscall.SysProcAttr) (pid int, err error) {
	attr := &syscall.ProcAttr{Dir: s.Directory, Env: s.Env, Files: files[:], Sys: sys}
	for wait := time.Millisecond; ; wait *= 2 {
		pid, err = syscall.ForkExec(s.Argv[0], s.Argv, attr)
		if err != unix.ETXTBSY || wait > 200*time.Millisecond {
			return pid, err
		}
		time.Sleep(wait)
	}
}

// started makes a Process of a child, or ends the child.
func started(s Spec, pid, pidfd int) (*Process, error) {
	fail := func(err error) error {
		// It is our child and not reaped, so that the group is certain.
		_ = unix.Kill(-pid, unix.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
		return &StartError{Instance: s.Instance, Command: s.Argv[0], Problem: "it can not be supervised: " + err.Error(), Err: err}
	}
	if pidfd < 0 {
		return nil, fail(errors.New("the kernel gave no pidfd; Linux 5.4 or newer is needed"))
	}
	p, err := own(pid, pidfd, child)
	if err != nil {
		return nil, fail(err)
	}
	p.id.Cgroup = s.Cgroup
	return p, nil
}

// stdio holds the descriptors 0, 1 and 2 of a child.
type stdio [3]uintptr

func openStdio(s Spec) (stdio, error) {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return stdio{}, explain(s, fmt.Errorf("open %s: %w", os.DevNull, err))
	}
	output := null
	if s.Log != "" {
		output, err = unix.Open(s.Log, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC, 0o640)
		if err != nil {
			unix.Close(null)
			return stdio{}, &StartError{Instance: s.Instance, Command: s.Argv[0],
				Problem: fmt.Sprintf("its log file %s can not be opened: %v", s.Log, err),
				Cure:    "make its directory and let the agent write there", Err: err}
		}
	}
	return stdio{uintptr(null), uintptr(output), uintptr(output)}, nil
}

func (f stdio) close() {
	unix.Close(int(f[0]))
	if f[1] != f[0] {
		unix.Close(int(f[1]))
	}
}

// makeCgroup makes the cgroup of s, or takes an empty one that was left, and
// opens it.
func makeCgroup(s Spec) (fd int, err error) {
	err = unix.Mkdir(s.Cgroup, 0o755)
	if err == unix.EEXIST {
		if populated, _ := populated(s.Cgroup); populated {
			return -1, &StartError{Instance: s.Instance, Command: s.Argv[0],
				Problem: fmt.Sprintf("processes of an instance before it are still in %s", s.Cgroup),
				Cure:    "end them first", Err: ErrOccupied}
		}
		err = nil
	}
	if err == nil {
		fd, err = unix.Open(s.Cgroup, unix.O_DIRECTORY|unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, &StartError{Instance: s.Instance, Command: s.Argv[0],
			Problem: fmt.Sprintf("its cgroup %s can not be made: %v", s.Cgroup, err),
			Cure:    "make the cgroup above it writable for the agent (systemd: Delegate=yes)", Err: err}
	}
	return fd, nil
}
