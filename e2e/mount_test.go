//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// apart lets a test mount what only it and its programs see. Whatever ends them,
// the system unmounts it behind the last of them.
func apart(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // for good: the thread goes with the test
	err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	allowed(t, "mount file systems of its own", err)
}

// allowed skips a test that its user may not do; where root could, as in CI, nothing
// is skipped.
func allowed(t *testing.T, what string, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Geteuid() == 0 && os.Getenv("CI") != "":
		t.Fatalf("this test has to %s: %v", what, err)
	default:
		t.Skipf("this test has to %s, which needs root: %v", what, err)
	}
}

// smallDisk is a directory with a file system of its own, which is empty and holds
// so many bytes. It is for a state directory, and has to be made before the stage,
// behind which it goes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	apart(t)
	dir := t.TempDir()
	mounted(t, dir, unix.Mount("small", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)))
	return dir
}

// mounted has a directory unmounted when the test has ended.
func mounted(t *testing.T, dir string, err error) {
	t.Helper()
	allowed(t, "mount a file system", err)
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("%s can not be unmounted: %v", dir, err)
		}
	})
}

// realDisk is a directory with an ext4 of its own, as smallDisk.
func realDisk(t *testing.T) string {
	t.Helper()
	apart(t)
	image, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	err := os.WriteFile(image, nil, 0o600)
	if err == nil {
		err = os.Truncate(image, 16<<20)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", "-E", "root_owner=0:0", image},
		{"mount", "-o", "loop", image, dir},
	} {
		out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		allowed(t, command[0], err)
	}
	mounted(t, dir, os.Chmod(dir, 0o700))
	return dir
}

// freeze holds up whoever writes to a file system until it is thawed, which it is
// in any case when the test ends, or the program of the tests.
func (s *stage) freeze(dir string) (thaw func()) {
	s.t.Helper()
	cmd := exec.Command("sh", "-c", `fsfreeze --freeze "$0" && echo frozen && read -r _; fsfreeze --unfreeze "$0"`, dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	s.must(err)
	out, err := cmd.StdoutPipe()
	s.must(err)
	s.must(cmd.Start())
	said := make([]byte, len("frozen\n"))
	if _, err := out.Read(said); err != nil {
		s.t.Fatal("the file system can not be frozen: ", errors.Join(err, cmd.Wait()))
	}
	done := false
	thaw = func() {
		if !done {
			done = true
			s.must(errors.Join(in.Close(), cmd.Wait()))
		}
	}
	s.t.Cleanup(thaw)
	return thaw
}

// fill leaves no byte free on a file system, and returns how to make room again.
func (s *stage) fill(dir string) (room func()) {
	s.t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	s.must(err)
	defer f.Close()
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			block = block[:len(block)/2]
		} else {
			s.must(err)
		}
	}
	return func() { s.must(os.Remove(name)) }
}

// cgroup is one with a controller, be it of version 1 or 2.
type cgroup struct {
	dir   string
	limit string // the file
}

// ownCgroup makes one for a test. It has to be made before the stage, behind which
// it goes.
func ownCgroup(t *testing.T, controller string) (c cgroup) {
	t.Helper()
	var problems error
	for _, c := range []cgroup{
		{"/sys/fs/cgroup/" + controller, controller + ".max"}, // pids of version 1
		{"/sys/fs/cgroup/" + controller, controller + ".limit_in_bytes"},
		{"/sys/fs/cgroup", controller + ".max"},
	} {
		dir, err := os.MkdirTemp(c.dir, "e2e-")
		if err == nil {
			c.dir = dir
			if _, err = os.Stat(filepath.Join(dir, c.limit)); err == nil {
				t.Cleanup(c.remove(t))
				return c
			}
			err = errors.Join(err, os.Remove(dir))
		}
		problems = errors.Join(problems, err)
	}
	allowed(t, "have a cgroup with the controller "+controller, problems)
	return c
}

func (c cgroup) remove(t *testing.T) func() {
	return func() {
		if err := os.Remove(c.dir); err != nil {
			t.Error(err)
		}
	}
}

// take moves a process there, and with it all that it starts from now on.
func (c cgroup) take(pid int) error {
	return os.WriteFile(filepath.Join(c.dir, "cgroup.procs"), fmt.Append(nil, pid), 0)
}

// limitTo bounds what those in there have together.
func (c cgroup) limitTo(most any) error {
	return os.WriteFile(filepath.Join(c.dir, c.limit), fmt.Append(nil, most), 0)
}
