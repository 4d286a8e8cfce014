package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/agent/process"
)

// shell is a command that runs script in a directory, and in a cgroup of its own if
// there are any.
func shell(t *testing.T, dir, script string) process.Spec {
	spec := process.Spec{Instance: t.Name(), Argv: []string{"/bin/sh", "-c", script}, Env: []string{"WORD=well"}, Directory: dir}
	if root, err := process.Cgroups(fmt.Sprintf("probe-test-%d", os.Getpid())); err == nil {
		spec.Cgroup = filepath.Join(root, "check-live")
		t.Cleanup(func() { process.RemoveCgroups(root) })
	}
	return spec
}

func TestCommand(t *testing.T) {
	for script, no := range map[string]string{
		`test "$WORD" = well && test "$(pwd)" = "$(pwd -P)"`:   "",
		`echo warming up; echo; exit 3`:                        `sh finds that it is not well (exit code 3: "warming up")`,
		`echo to its errors >&2; kill -9 $$`:                   `signal SIGKILL: "to its errors"`,
		`exit 1`:                                               "(exit code 1)",
		`yes | head -c 1000000; echo; echo -n unended; exit 1`: `"unended"`,
		`head -c 1000000 /dev/zero | tr '\0' x; exit 1`:        "xxx",
		`sleep 1000 & exit 0`:                                  "", // which ends with it
	} {
		err := Command(shell(t, t.TempDir(), script)).Once(t.Context())
		if no == "" && err != nil || no != "" && (err == nil || !strings.Contains(err.Error(), no)) || len(fmt.Sprint(err)) > 500 {
			t.Errorf("%s: got %v, want %q", script, err, no)
		}
	}
	spec := shell(t, t.TempDir(), "")
	spec.Argv[0] = "/nowhere/sh"
	if err := Command(spec).Once(t.Context()); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no program: %v", err)
	}
}

// A command that does not end in time ends with all that it has started, and the
// next one finds nobody there.
func TestCommandSlow(t *testing.T) {
	dir := t.TempDir()
	q := Command(shell(t, dir, `sleep 1000 & echo $! >started.tmp; echo thinking; mv started.tmp started; wait`))
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		answers := make(chan error)
		go func() { answers <- q.Once(ctx) }()
		pid := 0
		for began := time.Now(); pid == 0; <-time.After(time.Millisecond) {
			text, _ := os.ReadFile(filepath.Join(dir, "started"))
			pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
			if time.Since(began) > 20*time.Second {
				t.Fatal("it did not start")
			}
		}
		cancel()
		if err := <-answers; err == nil || !strings.Contains(err.Error(), `did not end in time: "thinking"`) {
			t.Errorf("got %v", err)
		}
		// A child of its own that was killed may still be there as a zombie of whoever reaps it.
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(text), ") Z ") {
			t.Errorf("process %d lives on: %s, %v", pid, text, unix.Kill(pid, 0))
		}
		if err := os.Remove(filepath.Join(dir, "started")); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}
