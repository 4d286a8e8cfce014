package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroups makes the cgroup name as the root of one cgroup per instance, and
// returns its directory. It lies in the one that was delegated to us: the agent's
// own, or the one above where systemd has put the agent into a subgroup of that
// (DelegateSubgroup=), because a cgroup with processes in it can not give those
// below it limits. The error says why that is not possible here; without cgroups
// only a child's session can be ended, not what left it.
func Cgroups(name string) (root string, err error) {
	own, err := cgroupOf(os.Getpid())
	if err != nil {
		return "", err
	}
	ours := own
	if above := filepath.Dir(own); delegated(above) && !delegated(own) {
		ours = above
	}
	root = filepath.Join(ours, name)
	if err := unix.Mkdir(root, 0o755); err != nil && err != unix.EEXIST {
		return "", fmt.Errorf("can not make the cgroup %s: %w; run as root or with a delegated cgroup (systemd: Delegate=yes)", root, err)
	}
	for _, file := range []string{filepath.Join(root, killFile), filepath.Join(root, procsFile), filepath.Join(own, procsFile)} {
		if err := unix.Access(file, unix.W_OK); err != nil {
			_ = unix.Rmdir(root)
			return "", fmt.Errorf("can not write %s: %w; Linux 5.14 and a delegated cgroup are needed", file, err)
		}
	}
	return root, nil
}

// delegated tells whether systemd has marked a cgroup as left to the service in
// it (systemd.resource-control(5), Delegate=).
func delegated(dir string) bool {
	var mark [1]byte
	for _, name := range []string{"user.delegate", "trusted.delegate"} { // the latter is older, and for root only
		if n, err := unix.Getxattr(dir, name, mark[:]); err == nil && n == 1 && mark[0] == '1' {
			return true
		}
	}
	return false
}

const (
	killFile   = "cgroup.kill"
	procsFile  = "cgroup.procs"
	eventsFile = "cgroup.events"
)

// RemoveCgroups removes root and the cgroups below it, except those that still
// have processes. Nothing may be started below root meanwhile.
func RemoveCgroups(root string) error {
	err := removeCgroup(root)
	if err == unix.EBUSY {
		return nil
	}
	return err
}

// removeCgroup is rmdir from the leaves up. A process may have made cgroups
// below its own.
func removeCgroup(dir string) error {
	if err := rmdir(dir); err == nil {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("can not look into the cgroup %s: %w", dir, err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeCgroup(filepath.Join(dir, entry.Name())); err != nil && err != unix.EBUSY {
				return err
			}
		}
	}
	err = rmdir(dir)
	if err != nil && err != unix.EBUSY {
		err = fmt.Errorf("can not remove the cgroup %s: %w", dir, err)
	}
	return err
}

// removalsAtOnce is how many cgroups are removed at a time.
const removalsAtOnce = 2

// few lets few at a time into the kernel where it makes them queue: there each
// of them holds a thread, and after a mass kill they come in hundreds. The
// number of threads is the whole program's, and so is this.
var few = make(chan struct{}, removalsAtOnce)

// rmdir removes a cgroup without cgroups below it. That it is gone is success.
func rmdir(dir string) error {
	few <- struct{}{}
	defer func() { <-few }()
	if err := unix.Rmdir(dir); err != unix.ENOENT {
		return err
	}
	return nil
}

// EmptyCgroup ends all processes in the cgroup dir and below it, waits until
// none is left, and removes it. No such cgroup is success. When ctx ends first,
// left are those that still live. It is for what a process left behind whose
// leader is gone, so that there is nothing to adopt.
func EmptyCgroup(ctx context.Context, dir string) (left []int, err error) {
	if err := rmdir(dir); err == nil {
		return nil, nil // nearly always: the leader was alone
	}
	if err := killCgroup(dir); err != nil {
		return pidsIn(dir), err
	}
	if err := awaitUnpopulated(ctx, dir); err != nil {
		return pidsIn(dir), err
	}
	return nil, removeCgroup(dir)
}

// killCgroup ends all in dir and below it, also those who fork meanwhile.
func killCgroup(dir string) error {
	fd, err := unix.Open(filepath.Join(dir, killFile), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte("1"))
		unix.Close(fd)
	}
	if err != nil && err != unix.ENOENT && err != unix.ENODEV {
		return fmt.Errorf("can not end the processes in the cgroup %s: %w", dir, err)
	}
	return nil
}

// awaitUnpopulated waits in the poller: the kernel notifies readers of
// cgroup.events.
func awaitUnpopulated(ctx context.Context, dir string) error {
	file, err := os.Open(filepath.Join(dir, eventsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("can not watch the cgroup %s: %w", dir, err)
	}
	defer file.Close()
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("can not watch the cgroup %s: %w", dir, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = raw.Read(func(fd uintptr) bool {
		var buf [256]byte
		n, err := unix.Pread(int(fd), buf[:], 0)
		return err != nil && err != unix.EINTR || err == nil && !saysPopulated(buf[:n])
	})
	if err != nil {
		return fmt.Errorf("processes in the cgroup %s are still alive: %w", dir, context.Cause(ctx))
	}
	return nil
}

// populated tells whether a process lives in dir or below it.
func populated(dir string) (bool, error) {
	var buf [256]byte
	text, err := slurp(filepath.Join(dir, eventsFile), buf[:])
	return err == nil && saysPopulated(text), err
}

func saysPopulated(events []byte) bool { return bytes.Contains(events, []byte("populated 1")) }

// pidsOf are the pids in dir itself, as far as they can be read.
func pidsOf(dir string) []int {
	var pids []int
	text, _ := os.ReadFile(filepath.Join(dir, procsFile))
	for _, line := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(line); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// pidsIn are the pids in dir and below it, as far as they can be read.
func pidsIn(dir string) []int {
	pids := pidsOf(dir)
	const alone = 2 // links of a directory without others in it
	var info unix.Stat_t
	if unix.Stat(dir, &info) != nil || info.Nlink == alone {
		return pids
	}
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if entry.IsDir() {
			pids = append(pids, pidsIn(filepath.Join(dir, entry.Name()))...)
		}
	}
	return pids
}
