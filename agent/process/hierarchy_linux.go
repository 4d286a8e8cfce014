package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// hierarchy is where the version 2 cgroups from root on are mounted. There may
// also be hierarchies of version 1 beside it: none of them is of use to us.
type hierarchy struct{ root, point string }

// mounted finds the version 2 hierarchy, once: it is mounted when the machine
// starts.
var mounted = sync.OnceValues(func() (hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return hierarchy{}, fmt.Errorf("can not look for cgroups: %w", err)
	}
	path, err := cgroupPath(os.Getpid())
	if err != nil {
		return hierarchy{}, err
	}
	return findMount(string(mounts), path, holdsUs)
})

// findMount finds the mount of a mountinfo file through which the cgroup path,
// in which we are, can be reached. A container may see others as well: those of
// the machine, or of a part of the hierarchy in which it is not.
func findMount(mounts, path string, ours func(dir string) bool) (hierarchy, error) {
	var elsewhere error
	for line := range strings.Lines(mounts) {
		h, ok := parseMount(line)
		if !ok {
			continue
		}
		if dir, ok := h.directory(path); ok && ours(dir) {
			return h, nil
		}
		elsewhere = fmt.Errorf("our cgroup %s is not to be found below %s: %w; mount the hierarchy in our own cgroup namespace", path, h.point, errors.ErrUnsupported)
	}
	if elsewhere != nil {
		return hierarchy{}, elsewhere
	}
	return hierarchy{}, fmt.Errorf("no cgroup hierarchy of version 2 is mounted: %w", errors.ErrUnsupported)
}

// holdsUs tells whether we are in the cgroup at dir.
func holdsUs(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, procsFile))
	return err == nil && slices.Contains(strings.Fields(string(text)), strconv.Itoa(os.Getpid()))
}

// parseMount reads a line of mountinfo (proc_pid_mountinfo(5)): id, parent,
// device, root, mount point, options, optional fields, "-", type, ...
func parseMount(line string) (hierarchy, bool) {
	before, after, _ := strings.Cut(line, " - ")
	fields := strings.Fields(before)
	if len(fields) < 6 || !strings.HasPrefix(after, "cgroup2 ") {
		return hierarchy{}, false
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	return hierarchy{root: unescape.Replace(fields[3]), point: unescape.Replace(fields[4])}, true
}

// directory is where the cgroup path is; false if the mount does not show it.
func (h hierarchy) directory(path string) (string, bool) {
	below, ok := strings.CutPrefix(path, strings.TrimSuffix(h.root, "/"))
	if !ok || below != "" && below[0] != '/' {
		return "", false
	}
	return filepath.Join(h.point, below), true
}

// cgroupOf is the absolute directory of the cgroup that a process is in, to be
// compared with Identity.Cgroup. The error is ErrGone if there is no such process.
func cgroupOf(pid int) (string, error) {
	h, err := mounted()
	if err != nil {
		return "", err
	}
	path, err := cgroupPath(pid)
	if err != nil {
		return "", err
	}
	dir, ok := h.directory(path)
	if !ok {
		return "", fmt.Errorf("the cgroup %s of process %d is not below %s: %w", path, pid, h.point, errors.ErrUnsupported)
	}
	return dir, nil
}

// cgroupPath is the path of a process's cgroup within the version 2 hierarchy.
func cgroupPath(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return "", fmt.Errorf("there is no process %d: %w", pid, ErrGone)
	}
	if err != nil {
		return "", fmt.Errorf("can not read the cgroup of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path, nil
		}
	}
	return "", fmt.Errorf("process %d is in no cgroup of version 2: %w", pid, errors.ErrUnsupported)
}
