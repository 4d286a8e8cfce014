package process

import (
	"errors"
	"fmt"
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
	files, err := openFiles(s)
	defer files.close()
	if err != nil {
		return nil, err
	}
	pidfd := -1
	sys := &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if s.User != nil && files.status == nil { // else the launcher does it
		sys.Credential = credential(s.User)
	}
	for _, controller := range s.Limits.Controllers() {
		if s.Cgroup == "" {
			err := Controller("", controller)
			return nil, &StartError{Instance: s.Instance, Command: s.Argv[0], Problem: err.Error(), Err: err}
		}
	}
	if s.Cgroup != "" {
		dir, err := makeCgroup(s)
		if err != nil {
			return nil, err
		}
		defer unix.Close(dir)
		sys.UseCgroupFD, sys.CgroupFD = true, dir
	}
	pid, err := spawn(s, files, sys)
	if err != nil {
		if s.Cgroup != "" {
			_ = unix.Rmdir(s.Cgroup)
		}
		return nil, explain(s, err)
	}
	return supervised(s, pid, pidfd, files.launched())
}

// spawn is fork and exec. A program that was written a moment ago can be busy
// still, because a fork elsewhere holds the writer's descriptor until its exec.
func spawn(s Spec, files *files, sys *syscall.SysProcAttr) (pid int, err error) {
	attr := &syscall.ProcAttr{Dir: s.Directory, Env: s.Env, Files: files.passed, Sys: sys}
	path, argv := files.command(s)
	started.forking.RLock()
	defer started.forking.RUnlock()
	for wait := time.Millisecond; ; wait *= 2 {
		if pid, err = syscall.ForkExec(path, argv, attr); err == nil {
			claim(pid)
		}
		if err != unix.ETXTBSY || wait > 200*time.Millisecond {
			return pid, err
		}
		time.Sleep(wait)
	}
}

// supervised makes a Process of a child, or ends the child; launched is what went
// wrong before it became the command.
func supervised(s Spec, pid, pidfd int, launched error) (*Process, error) {
	end := func() {
		// It is our child and not reaped, so that the group is certain.
		_ = unix.Kill(-pid, unix.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
		disclaim(pid)
		if s.Cgroup != "" {
			_ = unix.Rmdir(s.Cgroup)
		}
	}
	fail := func(err error) error {
		end()
		return &StartError{Instance: s.Instance, Command: s.Argv[0], Problem: "it can not be supervised: " + err.Error(), Err: err}
	}
	if launched != nil {
		if pidfd >= 0 {
			unix.Close(pidfd)
		}
		end()
		return nil, &StartError{Instance: s.Instance, Command: s.Argv[0], Problem: launched.Error(), Err: launched}
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
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		problem, cure := systemFault(s, err)
		return -1, &StartError{Instance: s.Instance, Command: s.Argv[0], Problem: problem, Cure: cure, Err: err}
	}
	if err != nil {
		return -1, &StartError{Instance: s.Instance, Command: s.Argv[0],
			Problem: fmt.Sprintf("its cgroup %s can not be made: %v", s.Cgroup, err),
			Cure:    "make the cgroup above it writable for the agent (systemd: Delegate=yes)", Err: err}
	}
	if err := bound(s.Cgroup, s.Limits); err != nil {
		unix.Close(fd)
		_ = unix.Rmdir(s.Cgroup)
		return -1, &StartError{Instance: s.Instance, Command: s.Argv[0], Problem: err.Error(), Err: err}
	}
	return fd, nil
}
