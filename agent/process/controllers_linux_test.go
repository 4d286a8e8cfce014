package process

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pretended is a directory with the files of cgroups: one above, the agent's own
// root below it, and an instance. The kernel is not there to do what is written.
func pretended(t *testing.T, above, root string) (instance string) {
	t.Helper()
	dir := t.TempDir()
	instance = filepath.Join(dir, "root", "i-x")
	if err := os.MkdirAll(instance, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cgroup.controllers": above, "cgroup.subtree_control": root, "cgroup.procs": "",
		"root/cgroup.controllers": root, "root/cgroup.subtree_control": "",
		"root/i-x/memory.max": "", "root/i-x/cpu.max": "", "root/i-x/pids.max": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return instance
}

var everyLimit = Limits{Memory: 64 << 20, CPU: 0.5, PIDs: 100}

// What is written where, as far as a plain directory shows it: the controllers are
// passed on to the instances, and each has its limits.
func TestWhatIsWrittenForLimits(t *testing.T) {
	instance := pretended(t, "cpuset cpu io memory pids", "")
	if err := bound(instance, Limits{Memory: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	read := func(elements ...string) string {
		text, err := os.ReadFile(filepath.Join(append([]string{instance}, elements...)...))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	for name, want := range map[string]string{
		"../../cgroup.subtree_control": "+memory", "../cgroup.subtree_control": "+memory",
		"memory.max": "67108864", "cpu.max": "", "pids.max": "",
	} {
		if got := read(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}

	// Where the one above has passed them on already, nothing is asked of it.
	instance = pretended(t, "cpu memory pids", "cpu memory pids")
	if err := bound(instance, everyLimit); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"../../cgroup.subtree_control": "cpu memory pids",
		"memory.max":                   "67108864", "cpu.max": "50000 100000", "pids.max": "100",
	} {
		if got := read(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// A limit that can not be is refused, with the controller's name and the cure.
func TestLimitsWithoutControllers(t *testing.T) {
	for name, test := range map[string]struct {
		above, procs string
		want         string
	}{
		"no controllers":       {"", "", "needs the controller memory of cgroup version 2, and the cgroup ABOVE has none; "},
		"others":               {"cpu hugetlb", "", "and the cgroup ABOVE has cpu, hugetlb; "},
		"a process in between": {"memory", "17\n", "and the cgroup ABOVE has processes itself; "},
	} {
		instance := pretended(t, test.above, "")
		above := filepath.Dir(filepath.Dir(instance))
		if err := os.WriteFile(filepath.Join(above, "cgroup.procs"), []byte(test.procs), 0o644); err != nil {
			t.Fatal(err)
		}
		err := bound(instance, Limits{Memory: 64 << 20})
		want := strings.ReplaceAll(test.want, "ABOVE", above)
		if !errors.Is(err, ErrNoController) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Delegate=yes and DelegateSubgroup=") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Controller("", "pids"); !errors.Is(err, ErrNoController) || !strings.Contains(err.Error(), "children have no cgroups here") {
		t.Errorf("without cgroups: %v", err)
	}
}

// With the kernel: either a process has its limits, or it does not start and the
// error says what is missing here.
func TestLimitsOfATree(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		s := as(t, "wait")
		s.Cgroup, s.Limits = cgroup, everyLimit
		root := ""
		if cgroup != "" {
			root = filepath.Dir(cgroup)
		}
		var missing error
		for _, name := range everyLimit.Controllers() {
			missing = errors.Join(missing, Controller(root, name))
		}
		if missing != nil {
			_, err := Start(s)
			problem, ok := errors.AsType[*StartError](err)
			if !ok || !errors.Is(err, ErrNoController) || !strings.Contains(missing.Error(), problem.Problem) {
				t.Errorf("started although %v: %v", missing, err)
			}
			if _, err := os.Stat(cgroup); cgroup != "" && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its cgroup is left: %v", err)
			}
			return
		}
		start(t, s)
		for file, want := range map[string]string{"memory.max": "67108864\n", "cpu.max": "50000 100000\n", "pids.max": "100\n"} {
			if got, err := os.ReadFile(filepath.Join(cgroup, file)); string(got) != want || err != nil {
				t.Errorf("%s: %q, %v, want %q", file, got, err, want)
			}
		}
	})
}
