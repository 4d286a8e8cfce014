package process

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Marked is a live process with a certain entry in its environment.
type Marked struct {
	Identity    Identity // with the cgroup that it is in, if that is known
	Leader      bool     // of its session, as everything is that Start starts
	Environment []string // with which it was started
}

// FindMarked finds the processes that were started with the entry mark in their
// environment, or inherited it, the caller apart, in the caller's own pid
// namespace. Whose environment the caller may not read is not found.
func FindMarked(mark string) ([]Marked, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("can not look for processes: %w", err)
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("can not look for processes: %w", err)
	}
	var all []Marked
	var bare []int // without any environment, as who executes a program is for a moment
	look := func(pid int) {
		env := environment(pid)
		if len(env) == 0 {
			bare = append(bare, pid)
		} else if slices.Contains(env, mark) {
			if m, ok := marked(pid, mark); ok {
				all = append(all, m)
			}
		}
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid != os.Getpid() {
			look(pid)
		}
	}
	for _, pid := range bare {
		look(pid)
	}
	slices.SortFunc(all, func(a, b Marked) int { return a.Identity.PID - b.Identity.PID })
	return all, nil
}

// marked looks once more, with the process held, so that all that is read is of
// one process.
func marked(pid int, mark string) (Marked, bool) {
	p, err := Watch(pid)
	if err != nil {
		return Marked{}, false
	}
	defer p.Close()
	m := Marked{Identity: p.id, Environment: environment(pid)}
	if sid, err := unix.Getsid(pid); err == nil {
		m.Leader = sid == pid
	}
	if dir, err := cgroupOf(pid); err == nil {
		m.Identity.Cgroup = dir
	}
	return m, slices.Contains(m.Environment, mark) && inOurNamespace(pid) && !p.dead()
}

// inOurNamespace tells whether a process is not in a container of somebody's, in
// which the same mark may be that of another agent.
func inOurNamespace(pid int) bool {
	ours, err1 := os.Readlink("/proc/self/ns/pid")
	its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	return err1 == nil && err2 == nil && ours == its
}

// environment is that with which a process was started; nothing if it is gone or
// may not be looked at.
func environment(pid int) []string {
	var buf [16 << 10]byte
	path := fmt.Sprintf("/proc/%d/environ", pid)
	text, err := slurp(path, buf[:])
	if err == nil && len(text) == len(buf) { // there may be more
		text, err = os.ReadFile(path)
	}
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(string(text), "\x00")
}
