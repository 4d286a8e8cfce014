// Package packaging_test installs the deb into a machine of its own and lives with
// it: systemd as the first process of a private namespace, on an overlay over the
// root of this machine that is gone when the test ends.
package packaging_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleVariable has the test binary become the machine's first process.
const roleVariable = "PACKAGING_TEST_MACHINE"

const systemd = "/lib/systemd/systemd"

func TestMain(m *testing.M) {
	if dir := os.Getenv(roleVariable); dir != "" {
		fmt.Fprintln(os.Stderr, "the machine can not be made:", boot(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// boot makes a machine out of the namespaces in which it is, with its root on a
// tmpfs at dir, and becomes its systemd.
func boot(dir string) error {
	root := filepath.Join(dir, "root")
	mounts := []struct {
		what, where, kind string
		flags             uintptr
		data              string
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{"tmpfs", dir, "tmpfs", 0, ""},
		{"overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)},
		{"/dev", root + "/dev", "", unix.MS_BIND | unix.MS_REC, ""},
		{"proc", root + "/proc", "proc", 0, ""},
		{"sysfs", root + "/sys", "sysfs", 0, ""},
		{"cgroup2", root + "/sys/fs/cgroup", "cgroup2", 0, ""},
		{"tmpfs", root + "/run", "tmpfs", 0, "mode=755"},
		{"tmpfs", root + "/tmp", "tmpfs", 0, "mode=1777"},
	}
	runtime.LockOSThread()                                     // the cgroup namespace is the thread's that becomes systemd
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil { // now that we are in the machine's cgroup
		return err
	}
	for _, m := range mounts {
		if m.where == root {
			for _, name := range []string{"upper", "work", "root"} {
				if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
					return err
				}
			}
		}
		if err := unix.Mount(m.what, m.where, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.where, err)
		}
	}
	target := "[Unit]\nDescription=A machine with nothing on it\nDefaultDependencies=no\n"
	if err := os.WriteFile(root+"/etc/systemd/system/machine.target", []byte(target), 0o644); err != nil {
		return err
	}
	if err := errors.Join(loopbackUp(), unix.Chdir(root), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/")); err != nil {
		return err
	}
	return syscall.Exec(systemd, []string{"systemd", "--system", "--unit=machine.target", "--log-target=console", "--log-level=warning", "--show-status=no", "--default-standard-output=inherit"},
		[]string{"container=test", "PATH=" + os.Getenv("PATH")})
}

// loopbackUp lets the machine talk with itself.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request)
}

// machine is a running one.
type machine struct {
	t      *testing.T
	ctx    context.Context
	init   *exec.Cmd
	cgroup string
	log    *os.File
}

// newMachine starts a machine, on which files has been written before.
func newMachine(t *testing.T, files map[string]string) *machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat(systemd); errors.Is(err, fs.ErrNotExist) {
		t.Skip("needs systemd: apt-get install systemd")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	m := &machine{t: t, ctx: ctx}
	t.Cleanup(cancel)
	m.makeCgroup()
	var err error
	if m.log, err = os.Create(filepath.Join(t.TempDir(), "log")); err != nil {
		t.Fatal(err)
	}
	cgroup, err := os.Open(m.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer cgroup.Close()
	m.init = exec.Command("/proc/self/exe")
	m.init.Env = append(os.Environ(), roleVariable+"="+t.TempDir())
	m.init.Stdout, m.init.Stderr = m.log, m.log
	m.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		UseCgroupFD: true, CgroupFD: int(cgroup.Fd()),
	}
	if err := m.init.Start(); errors.Is(err, unix.EPERM) {
		t.Skip("needs the right to make namespaces: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.end)
	m.until("systemd answers", func() bool {
		_, err := m.try("systemctl", "show", "--property=Version")
		return err == nil
	})
	for name, text := range files {
		m.write(name, text)
	}
	return m
}

// makeCgroup makes the cgroup in which all of the machine will be.
func (m *machine) makeCgroup() {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		m.t.Fatal(err)
	}
	_, own, _ := strings.Cut("\n"+string(text), "\n0::")
	own, _, _ = strings.Cut(own, "\n")
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(mount, own, "cgroup.procs")); err == nil {
			m.cgroup = filepath.Join(mount, own, fmt.Sprintf("packaging-test-%d", os.Getpid()))
		}
	}
	if m.cgroup == "" {
		m.t.Skip("needs cgroups of version 2")
	}
	if err := os.Mkdir(m.cgroup, 0o755); err != nil {
		m.t.Skip("needs the right to make cgroups: ", err)
	}
}

// end ends the machine with everything in it.
func (m *machine) end() {
	_ = m.init.Process.Kill() // the first process: all others go with it
	_ = m.init.Wait()
	if m.t.Failed() {
		text, _ := os.ReadFile(m.log.Name())
		m.t.Logf("--- the machine said\n%s", text)
	}
	m.log.Close()
	m.until("the cgroups are gone", func() bool {
		var all []string
		_ = filepath.WalkDir(m.cgroup, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		for i := len(all) - 1; i >= 0; i-- {
			_ = os.Remove(all[i])
		}
		_, err := os.Stat(m.cgroup)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// path is where a file of the machine is for us.
func (m *machine) path(name string) string {
	return fmt.Sprintf("/proc/%d/root%s", m.init.Process.Pid, name)
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755)
	if err == nil {
		err = os.WriteFile(m.path(name), []byte(text), 0o755)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// run runs a command on the machine.
func (m *machine) run(command ...string) string {
	m.t.Helper()
	out, err := m.try(command...)
	if err != nil {
		m.t.Fatalf("%q: %v\n%s", command, err, out)
	}
	return out
}

func (m *machine) try(command ...string) (string, error) {
	target := []string{"--target", fmt.Sprint(m.init.Process.Pid), "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--"}
	cmd := exec.CommandContext(m.ctx, "nsenter", append(target, command...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// until waits for what no event announces.
func (m *machine) until(what string, condition func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !condition(); {
		if time.Now().After(deadline) {
			m.t.Fatal("it did not come to that: ", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}
