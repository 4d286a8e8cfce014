package process

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseMount(t *testing.T) {
	for line, want := range map[string]hierarchy{
		"40 30 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw":            {"/", "/sys/fs/cgroup/unified"},
		"29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw":    {"/", "/sys/fs/cgroup"},
		`29 23 0:26 /box /mnt/a\040b rw - cgroup2 none rw`:                                {"/box", "/mnt/a b"},
		"31 30 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu":              {},
		"31 30 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:1 - tmpfs cgroup2 rw,cgroup2": {},
		"- cgroup2": {},
		"":          {},
	} {
		if got, ok := parseMount(line); got != want || ok != (want != hierarchy{}) {
			t.Errorf("%q: got %+v", line, got)
		}
	}
}

func TestDirectoryOfACgroup(t *testing.T) {
	for _, test := range []struct{ root, path, want string }{
		{"/", "/", "/mnt"},
		{"/", "/a/b", "/mnt/a/b"},
		{"/box", "/box", "/mnt"},
		{"/box", "/box/a", "/mnt/a"},
		{"/box", "/boxer", ""},
		{"/box", "/", ""},
		{"/..", "/", ""}, // mounted from outside of our namespace
	} {
		if got, ok := (hierarchy{test.root, "/mnt"}).directory(test.path); got != test.want || ok != (test.want != "") {
			t.Errorf("%s below %s: got %q, want %q", test.path, test.root, got, test.want)
		}
	}
}

// Of several mounts the one counts that shows the cgroup in which we are.
func TestFindMount(t *testing.T) {
	const (
		v1      = "31 30 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
		outside = "32 30 0:37 /.. /outside rw - cgroup2 cgroup2 rw\n"
		other   = "33 30 0:37 /other /other rw - cgroup2 cgroup2 rw\n"
		stale   = "34 30 0:37 / /stale rw - cgroup2 cgroup2 rw\n"
		hybrid  = "35 30 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	)
	ours := func(dir string) bool { return dir == "/sys/fs/cgroup/unified/a" }
	if h, err := findMount(v1+outside+other+stale+hybrid, "/a", ours); err != nil || h.point != "/sys/fs/cgroup/unified" {
		t.Errorf("got %+v, %v", h, err)
	}
	for _, mounts := range []string{"", v1, v1 + outside + other, stale} {
		if h, err := findMount(mounts, "/a", ours); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%q: got %+v, %v", mounts, h, err)
		}
	}
}

// Where systemd has put the agent into a subgroup of what it delegated, those of
// the children lie beside it.
func TestCgroupsBesideASubgroup(t *testing.T) {
	root, err := testCgroups(t)
	if err != nil {
		t.Skip("needs cgroups: ", err)
	}
	unit := filepath.Join(root, "unit")
	for _, mark := range []string{"", "user.delegate"} {
		if err := unix.Mkdir(unit, 0o755); err != nil {
			t.Fatal(err)
		}
		want := filepath.Join(unit, "agent", "children")
		if mark != "" {
			want = filepath.Join(unit, "children")
			if err := unix.Setxattr(unit, mark, []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
		}
		s := as(t, "cgroups", "children")
		s.Cgroup = filepath.Join(unit, "agent")
		p := start(t, s)
		if got := strings.TrimSpace(lines(t, s.Log, 1)[0]); got != want {
			t.Errorf("with the mark %q: got %s, want %s", mark, got, want)
		}
		finish(t, p)
		if err := RemoveCgroups(unit); err != nil {
			t.Fatal(err)
		}
	}
}
