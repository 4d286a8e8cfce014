package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the leader leaves behind is gone after Empty, and its ports are free,
// while the leader itself is still a zombie.
func TestEmpty(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		for name, end := range map[string]func(p *Process) error{
			"leader killed": func(p *Process) error { return p.Signal(unix.SIGKILL) },
			"tree killed":   (*Process).KillTree,
		} {
			t.Run(name, func(t *testing.T) {
				p, all := startFamily(t, cgroup)
				if err := end(p); err != nil {
					t.Fatal(err)
				}
				if err := p.AwaitEnd(); err != nil {
					t.Fatal(err)
				}
				if left, err := p.Empty(t.Context()); left != nil || err != nil {
					t.Errorf("left %v, %v", left, err)
				}
				if got := state(p.Identity().PID); got != 'Z' {
					t.Errorf("the leader's state is %q, want a zombie", got)
				}
				for _, server := range all {
					if server.serves() {
						t.Errorf("port %d is still served", server.port)
					}
					if got := state(server.pid); got != 0 && got != 'Z' {
						t.Errorf("%d still lives: %q", server.pid, got)
					}
				}
				if left, err := p.Empty(t.Context()); left != nil || err != nil {
					t.Errorf("the second time left %v, %v", left, err)
				}
				if got := p.Reap(); got != (Exit{Signal: "SIGKILL"}) {
					t.Errorf("got %v", got)
				}
				if _, err := os.Stat(cgroup); cgroup != "" && !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the cgroup is still there: %v", err)
				}
			})
		}
	})
}

// startFamily starts a leader with servers: in its group, in a group of their
// own and, where a cgroup holds them, a daemon with two parents in between.
func startFamily(t *testing.T, cgroup string) (*Process, []server) {
	t.Helper()
	kind, n := "", 2
	if cgroup != "" {
		kind, n = "daemon", 3
	}
	s := as(t, "family", kind)
	s.Cgroup = cgroup
	p := start(t, s)
	all := servers(t, s.Log, n)
	for _, server := range all {
		if !server.serves() {
			t.Fatalf("port %d is not served", server.port)
		}
	}
	return p, all
}

// The way of a shell: its server would live on with the port.
func TestEmptyShell(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		s := as(t, "listen")
		s.Argv = []string{lookPath(t, "sh"), "-c", self(t) + " & wait"}
		s.Cgroup = cgroup
		p := start(t, s)
		server := servers(t, s.Log, 1)[0]
		if err := p.Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := p.AwaitEnd(); err != nil {
			t.Fatal(err)
		}
		if !server.serves() {
			t.Error("it ended with the shell: this test shows nothing")
		}
		if got := takeEnd(t, p); got != (Exit{Signal: "SIGKILL"}) || server.serves() {
			t.Errorf("got %v, served: %v", got, server.serves())
		}
	})
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// After Reap the ids may be a stranger's and the cgroup is the replacement's:
// nobody is touched.
func TestNothingAfterReap(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		s := as(t, "wait")
		s.Cgroup = cgroup
		p := start(t, s)
		finish(t, p)
		replacement := start(t, s)
		if left, err := p.Empty(t.Context()); left != nil || !errors.Is(err, ErrGone) {
			t.Errorf("Empty: got %v, %v; want ErrGone", left, err)
		}
		for name, err := range map[string]error{"KillTree": p.KillTree(), "Signal": p.Signal(unix.SIGKILL)} {
			if !errors.Is(err, ErrGone) {
				t.Errorf("%s: got %v, want ErrGone", name, err)
			}
		}
		if err := replacement.Signal(0); err != nil {
			t.Errorf("the replacement: %v", err)
		}
	})
}

// The context ends the wait, not the work: who survives is named.
func TestEmptyInTime(t *testing.T) {
	root, err := testCgroups(t)
	if err != nil {
		t.Logf("no cgroups here: %v", err)
		return
	}
	s := as(t, "wait")
	s.Cgroup = filepath.Join(root, "instance")
	p := start(t, s)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("no more time")
	cancel(cause)
	// Nobody can refuse SIGKILL, but its work is not done at once; so we ask
	// only whether the wait for it heeds the context.
	if err := awaitUnpopulated(ctx, s.Cgroup); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	if got := pidsIn(s.Cgroup); !slices.Equal(got, []int{p.Identity().PID}) {
		t.Errorf("members %v, want %d", got, p.Identity().PID)
	}
}

// A child may divide its own cgroup.
func TestEmptyNested(t *testing.T) {
	root, err := testCgroups(t)
	if err != nil {
		t.Logf("no cgroups here: %v", err)
		return
	}
	s := as(t, "wait")
	s.Cgroup = filepath.Join(root, "instance")
	p := start(t, s)
	below := as(t, "wait")
	below.Cgroup = filepath.Join(s.Cgroup, "below")
	inner := start(t, below)
	if got := pidsIn(s.Cgroup); len(got) != 2 {
		t.Errorf("members %v, want 2", got)
	}
	if got := finish(t, p); got != (Exit{Signal: "SIGKILL"}) {
		t.Errorf("got %v", got)
	}
	if got := inner.Reap(); got != (Exit{Signal: "SIGKILL"}) {
		t.Errorf("below: got %v", got)
	}
	if _, err := os.Stat(s.Cgroup); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// A second process of an instance never joins the first one's tree.
func TestStartOccupied(t *testing.T) {
	root, err := testCgroups(t)
	if err != nil {
		t.Logf("no cgroups here: %v", err)
		return
	}
	s := as(t, "wait")
	s.Cgroup = filepath.Join(root, "instance")
	p := start(t, s)
	if _, err := Start(s); !errors.Is(err, ErrOccupied) {
		t.Errorf("got %v, want ErrOccupied", err)
	}
	finish(t, p)
	if err := os.Mkdir(s.Cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	start(t, s) // an empty one is taken
}

func TestEmptyCgroup(t *testing.T) {
	root, err := testCgroups(t)
	if err != nil {
		t.Logf("no cgroups here: %v", err)
		return
	}
	dir := filepath.Join(root, "instance")
	if left, err := EmptyCgroup(t.Context(), dir); left != nil || err != nil {
		t.Errorf("one that is not there: %v, %v", left, err)
	}
	p, all := startFamily(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if left, err := EmptyCgroup(ctx, dir); left != nil || err != nil {
		t.Errorf("got %v, %v", left, err)
	}
	for _, server := range all {
		if server.serves() {
			t.Errorf("port %d is still served", server.port)
		}
	}
	if got := p.Reap(); got != (Exit{Signal: "SIGKILL"}) {
		t.Errorf("got %v", got)
	}
}

func TestCgroupErrors(t *testing.T) {
	if _, err := Cgroups("none/below"); err == nil {
		t.Error("a cgroup below none was made")
	}
	if _, err := cgroupOf(1 << 30); err == nil {
		t.Error("nobody has a cgroup")
	}
	if err := RemoveCgroups(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Error(err)
	}
}

func TestLineage(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		p, all := startFamily(t, cgroup)
		other := start(t, as(t, "wait"))
		for _, test := range []struct {
			pid  int
			want bool
		}{
			{p.Identity().PID, true}, {all[0].pid, true}, {all[len(all)-1].pid, true},
			{os.Getpid(), false}, {other.Identity().PID, false}, {1, false},
		} {
			l, err := LineageOf(test.pid)
			if got := l.Within(p.Identity()); got != test.want || err != nil {
				t.Errorf("%d: got %v, %v", test.pid, got, err)
			}
		}
		if l, err := LineageOf(1 << 30); !errors.Is(err, ErrGone) || l.Within(p.Identity()) {
			t.Errorf("nobody: got %v, %v", l, err)
		}
	})
}

// A tree that forks without end is gone when Empty says so: with a cgroup also one
// whose every process has a session of its own. There are few of them at a time and
// an end to it, lest a failure harms the machine.
func TestEmptyForkers(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		leave := ""
		if cgroup != "" {
			leave = lookPath(t, "setsid")
		}
		log := filepath.Join(t.TempDir(), "log")
		script := filepath.Join(t.TempDir(), "spread")
		text := `echo $$
[ "$1" -gt 0 ] || exit 0
` + leave + ` sh "$0" $(($1 - 1)) &
[ "$2" != leader ] || exec sleep 1000
`
		if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		p := start(t, Spec{Argv: []string{lookPath(t, "sh"), script, "20000", "leader"}, Env: []string{"PATH=" + os.Getenv("PATH")}, Log: log, Cgroup: cgroup})
		lines(t, log, 20)
		if err := p.Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		takeEnd(t, p)
		if cgroup != "" {
			if _, err := os.Stat(cgroup); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its cgroup is still there: %v", err)
			}
		} else {
			left, err := session(p.Identity().PID)
			left = slices.DeleteFunc(left, func(pid int) bool { s := state(pid); return s == 'Z' || s == 0 })
			if err != nil || len(left) > 0 {
				t.Errorf("%v of its session live: %v", left, err)
			}
		}
		all := lines(t, log, 20)
		if said, _ := os.ReadFile(log); strings.Count(string(said), "\n") > 20000 {
			t.Errorf("it had ended by itself before, from %s to %s", all[0], all[len(all)-1])
		}
	})
}
