package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	controllersFile = "cgroup.controllers"
	subtreeFile     = "cgroup.subtree_control"
)

// ErrNoController: a cgroup can not have a limit, because its controller is not
// ours to use. The error that wraps it names the controller and the cure.
var ErrNoController = errors.New("no such controller")

// Controller tells why the cgroups below root can not have limits of a controller
// (memory, cpu or pids); nil if they can. It changes nothing.
func Controller(root, name string) error {
	if root == "" {
		return noController(name, "children have no cgroups here")
	}
	above := filepath.Dir(root)
	switch {
	case hasWord(root, subtreeFile, name), hasWord(root, controllersFile, name):
		return nil
	case !hasWord(above, controllersFile, name):
		text, _ := os.ReadFile(filepath.Join(above, controllersFile))
		has := strings.Join(strings.Fields(string(text)), ", ")
		if has == "" {
			has = "none"
		}
		return noController(name, fmt.Sprintf("the cgroup %s has %s", above, has))
	case len(pidsOf(above)) > 0:
		return noController(name, fmt.Sprintf("the cgroup %s has processes itself", above))
	}
	return nil
}

func noController(name, why string) error {
	return fmt.Errorf("%w: its limit of %s needs the controller %s of cgroup version 2, and %s; "+
		"delegate it to agentd (systemd 254: Delegate=yes and DelegateSubgroup=), or take the limit out of the module", ErrNoController, name, name, why)
}

// enable has the cgroups below root have a controller.
func enable(root, name string) error {
	if err := Controller(root, name); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(root), root} {
		if hasWord(dir, subtreeFile, name) || dir != root && hasWord(root, controllersFile, name) {
			continue
		}
		if err := writeWord(filepath.Join(dir, subtreeFile), "+"+name); err != nil {
			return noController(name, fmt.Sprintf("it can not be used below %s: %v", dir, err))
		}
	}
	return nil
}

// bound gives a cgroup its limits.
func bound(dir string, l Limits) error {
	for _, name := range l.Controllers() {
		if err := enable(filepath.Dir(dir), name); err != nil {
			return err
		}
	}
	const period = 100_000 // microseconds
	for _, limit := range []struct {
		file, value string
		is          bool
	}{
		{"memory.max", strconv.FormatInt(l.Memory, 10), l.Memory != 0},
		{"cpu.max", fmt.Sprintf("%d %d", int64(l.CPU*period), period), l.CPU != 0},
		{"pids.max", strconv.FormatInt(l.PIDs, 10), l.PIDs != 0},
	} {
		if !limit.is {
			continue
		}
		if err := writeWord(filepath.Join(dir, limit.file), limit.value); err != nil {
			return fmt.Errorf("its limit %s can not be set to %s: %w", limit.file, limit.value, err)
		}
	}
	return nil
}

// writeWord writes a word into a file of the kernel, by one write.
func writeWord(path, word string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(word))
	return err
}

// hasWord tells whether a word stands in a file of a cgroup.
func hasWord(dir, file, word string) bool {
	text, err := os.ReadFile(filepath.Join(dir, file))
	return err == nil && slices.Contains(strings.Fields(string(text)), word)
}
