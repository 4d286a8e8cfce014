package process

import (
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/agent/process/launch"
)

// script is a Spec of a shell script, which may be run by anybody.
func script(t *testing.T, text string) Spec {
	t.Helper()
	dir := openDirectory(t)
	return Spec{Instance: "test", Argv: []string{"/bin/sh", "-c", text}, Env: []string{"PATH=/usr/bin:/bin"},
		Directory: dir, Log: filepath.Join(dir, "log"), Launcher: launcher(t)}
}

// openDirectory is one into which everybody may go; those of the testing
// package are their owner's.
func openDirectory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "process-test")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// launcher is the test binary, which is agentexec if it is called so.
func launcher(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

// output runs s to its end and returns what it wrote.
func output(t *testing.T, s Spec) string {
	t.Helper()
	p, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	exit := takeEnd(t, p)
	text, err := os.ReadFile(s.Log)
	if err != nil || exit != (Exit{}) {
		t.Fatalf("%v, %v:\n%s", exit, err, text)
	}
	return strings.TrimSpace(string(text))
}

func ptr(n int) *int { return &n }

func TestLimits(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		for what, c := range map[string]struct {
			limits Limits
			script string
			want   string
		}{
			"open files": {Limits{Resources: map[string]Resource{"nofile": {Soft: 77, Hard: 99}}}, "ulimit -Sn; ulimit -Hn", "77\n99"},
			"core":       {Limits{Resources: map[string]Resource{"core": {}}}, "ulimit -c", "0"},
			"infinity":   {Limits{Resources: map[string]Resource{"stack": {Soft: launch.Infinity, Hard: launch.Infinity}}}, "ulimit -s", "unlimited"},
			"niceness":   {Limits{Nice: ptr(7)}, "nice", "7"},
			"umask":      {Limits{Umask: ptr(0o027)}, "umask", "0027"},
			"oom score":  {Limits{OOMScore: ptr(321)}, "cat /proc/self/oom_score_adj", "321"},
			"name":       {Limits{Umask: ptr(0)}, "cat /proc/$$/comm", "sh"},
		} {
			t.Run(what, func(t *testing.T) {
				s := script(t, c.script)
				s.Limits, s.Cgroup = c.limits, cgroup
				if got := output(t, s); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			})
		}
	})
}

// The launcher leaves no descriptor behind.
func TestLaunchedDescriptors(t *testing.T) {
	s := script(t, "ls /proc/$$/fd")
	want := output(t, s)
	s = script(t, "ls /proc/$$/fd")
	s.Limits.Nice = ptr(0)
	if got := output(t, s); got != want {
		t.Errorf("descriptors %q, without a launcher %q", got, want)
	}
}

// Every limit has a name that the kernel knows by its number.
func TestResourcesAreTheKernels(t *testing.T) {
	called := map[string]string{ // in /proc/self/limits
		"core": "core file size", "locks": "file locks", "memlock": "locked memory", "msgqueue": "msgqueue size",
		"nofile": "open files", "nproc": "processes", "sigpending": "pending signals",
		// A child with next to nothing of these does not live.
		"as": "", "cputime": "", "data": "", "fsize": "", "rss": "", "rttime": "", "stack": "",
	}
	for _, name := range launch.Resources() {
		label, known := called[name]
		if label == "" {
			if !known {
				t.Errorf("%s is not tried", name)
			}
			continue
		}
		s := script(t, "grep -i 'max "+label+" ' /proc/self/limits")
		s.Limits.Resources = map[string]Resource{name: {Soft: 7, Hard: 8}}
		got := strings.Fields(strings.TrimPrefix(strings.ToLower(output(t, s)), "max "+label))
		if len(got) < 2 || got[0] != "7" || got[1] != "8" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		s := script(t, "id")
		s.User = &User{UID: 65534, GID: 65534}
		if _, err := Start(s); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "root") {
			t.Errorf("without the right: %v", err)
		}
		return
	}
	for _, limits := range []Limits{{}, {Umask: ptr(0o077)}} { // without and with the launcher
		s := script(t, "id -u; id -g; id -G; echo again >> /dev/stdout; test -w . || echo foreign")
		s.User, s.Limits = &User{UID: 65534, GID: 65533, Groups: []int{12, 13}}, limits
		if got, want := output(t, s), "65534\n65533\n65533 12 13\nagain\nforeign"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A launcher that can not do what it is told ends the start, and nothing is
// left of it.
func TestLaunchFails(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		for want, change := range map[string]func(*Spec){
			"can not be executed": func(s *Spec) { s.Argv = []string{"/none/such"} },
			"limit nofile":        func(s *Spec) { s.Limits.Resources = map[string]Resource{"nofile": {Soft: 2, Hard: 1}} },
			"its limits are set and its sockets passed by": func(s *Spec) { s.Launcher = "/none/such" },
			"oomscore can not be set:":                     func(s *Spec) { s.Limits.OOMScore = ptr(5000) },
		} {
			s := script(t, "sleep 100")
			s.Cgroup, s.Limits = cgroup, Limits{Umask: ptr(0)}
			change(&s)
			_, err := Start(s)
			var failed *StartError
			if !errors.As(err, &failed) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			if _, err := os.Stat(cgroup); cgroup != "" && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: the cgroup is left", want)
			}
		}
	})
}

func TestChecksum(t *testing.T) {
	program, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	right := sha256.Sum256(text)
	dir := openDirectory(t)
	copied := filepath.Join(dir, "cat")
	if err := os.WriteFile(copied, text, 0o755); err != nil {
		t.Fatal(err)
	}
	shell := filepath.Join(dir, "script")
	if err := os.WriteFile(shell, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ofShell := sha256.Sum256([]byte("#!/bin/sh\n"))
	for _, limits := range []Limits{{}, {Nice: ptr(1)}} {
		s := script(t, "")
		s.Argv, s.SHA256, s.Limits = []string{copied, "/proc/self/cmdline"}, &right, limits
		if os.Geteuid() == 0 {
			s.User = &User{UID: 65534, GID: 65534}
		}
		if got, want := output(t, s), copied+"\x00/proc/self/cmdline\x00"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		s.SHA256 = &[sha256.Size]byte{1}
		if _, err := Start(s); !errors.Is(err, ErrWrongChecksum) || !strings.Contains(err.Error(), strconv.Itoa(0)+"100") {
			t.Errorf("another checksum: %v", err)
		}
		s.Argv, s.SHA256 = []string{shell}, &ofShell
		if _, err := Start(s); !errors.Is(err, ErrWrongChecksum) {
			t.Errorf("a script: %v", err)
		}
	}
}
