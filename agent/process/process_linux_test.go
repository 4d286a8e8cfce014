package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExit(t *testing.T) {
	for _, test := range []struct {
		role, arg string
		want      Exit
	}{
		{"exit", "0", Exit{}},
		{"exit", "7", Exit{Code: 7}},
		{"exit", "255", Exit{Code: 255}},
		{"die", "9", Exit{Signal: "SIGKILL"}},
		{"die", "15", Exit{Signal: "SIGTERM"}},
	} {
		t.Run(test.role+" "+test.arg, func(t *testing.T) {
			p := start(t, as(t, test.role, test.arg))
			if !p.Child() {
				t.Error("it is our child")
			}
			if got := p.Reap(); got != test.want { // waits by itself
				t.Errorf("got %v, want %v", got, test.want)
			}
			if got := p.Reap(); got != test.want {
				t.Errorf("the second time: %v", got)
			}
		})
	}
}

func TestExitNamelessSignal(t *testing.T) {
	p := start(t, Spec{Instance: "test", Argv: []string{lookPath(t, "sh"), "-c", "kill -40 $$"}})
	if got := takeEnd(t, p); got != (Exit{Signal: "40"}) {
		t.Errorf("got %v", got)
	}
}

// A status that somebody else took is unknown, not 0.
func TestExitStolen(t *testing.T) {
	p := start(t, as(t, "exit", "7"))
	if _, err := unix.Wait4(p.Identity().PID, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	if got := p.Reap(); got != (Exit{Unknown: true}) {
		t.Errorf("got %v", got)
	}
}

func TestAwaitEndDoesNotReap(t *testing.T) {
	p := start(t, as(t, "exit", "7"))
	pid := p.Identity().PID
	for range 2 {
		if err := p.AwaitEnd(); err != nil {
			t.Fatal(err)
		}
		if got := p.Seen(); got != (Exit{Code: 7}) {
			t.Errorf("seen before it is reaped: %v", got)
		}
	}
	if got := state(pid); got != 'Z' {
		t.Errorf("after AwaitEnd its state is %q, want a zombie", got)
	}
	if err := p.Signal(unix.SIGTERM); !errors.Is(err, ErrGone) {
		t.Errorf("Signal to a zombie: %v", err)
	}
	if got := p.Reap(); got != (Exit{Code: 7}) {
		t.Errorf("got %v", got)
	}
	if got := state(pid); got != 0 {
		t.Errorf("after Reap its state is %q", got)
	}
	if err := p.AwaitEnd(); err != nil {
		t.Errorf("AwaitEnd after Reap: %v", err)
	}
}

func TestSignal(t *testing.T) {
	s := as(t, "obey", "5")
	p := start(t, s)
	lines(t, s.Log, 1)
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := takeEnd(t, p); got != (Exit{Code: 5}) {
		t.Errorf("got %v", got)
	}
}

func TestClose(t *testing.T) {
	s := as(t, "wait")
	p, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	lines(t, s.Log, 1)
	awaited := make(chan error)
	go func() { awaited <- p.AwaitEnd() }()
	id := p.Identity()
	again, err := Adopt(id)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Child() {
		t.Error("one that is adopted by its own parent is its child")
	}
	p.Close()
	p.Close()
	if err := <-awaited; !errors.Is(err, ErrClosed) {
		t.Errorf("AwaitEnd: %v", err)
	}
	for name, err := range map[string]error{"AwaitEnd": p.AwaitEnd(), "Signal": p.Signal(unix.SIGTERM), "KillTree": p.KillTree()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := p.Reap(); !got.Unknown {
		t.Errorf("Reap: %v", got)
	}
	if got := state(id.PID); got == 0 || got == 'Z' {
		t.Errorf("Close ended it: %q", got)
	}
	if got := finish(t, again); got != (Exit{Signal: "SIGKILL"}) {
		t.Errorf("got %v", got)
	}
}

func TestWatch(t *testing.T) {
	command := exec.Command("/proc/self/exe", "6")
	command.Env = []string{roleKey + "=obey"}
	ready, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanln(ready, new(string)); err != nil {
		t.Fatal(err)
	}
	p, err := Watch(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if p.Child() {
		t.Error("an outside process is nobody's child")
	}
	if id := p.Identity(); id.PID != command.Process.Pid || id.StartTime == 0 || id.BootID == "" {
		t.Errorf("got %+v", id)
	}
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitEnd(); err != nil {
		t.Fatal(err)
	}
	if left, err := p.Empty(t.Context()); left != nil || err != nil {
		t.Errorf("Empty: %v, %v", left, err)
	}
	// Its status is to be seen although it is not ours; and it is not taken
	// from whom it belongs to.
	if got := p.Reap(); got != (Exit{Code: 6}) {
		t.Errorf("got %v", got)
	}
	if err := command.Wait(); command.ProcessState.ExitCode() != 6 {
		t.Errorf("its parent got %v", err)
	}
	if _, err := Watch(command.Process.Pid); !errors.Is(err, ErrGone) {
		t.Errorf("Watch of a dead process: %v", err)
	}
}

func TestWatchNobody(t *testing.T) {
	p := start(t, as(t, "exit", "0"))
	if err := p.AwaitEnd(); err != nil {
		t.Fatal(err)
	}
	thread := unix.Gettid() // is none of a process, except in the main thread
	for name, pid := range map[string]int{"zombie": p.Identity().PID, "zero": 0, "negative": -1, "absent": 1 << 30} {
		if _, err := Watch(pid); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Watch(thread); thread != os.Getpid() && !errors.Is(err, ErrGone) {
		t.Errorf("thread: %v", err)
	}
}

// KillTree of an outside process spares its children.
func TestWatchKillTree(t *testing.T) {
	s := as(t, "family", "")
	leader := start(t, s)
	all := servers(t, s.Log, 2)
	p, err := Watch(leader.Identity().PID)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.KillTree(); err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitEnd(); err != nil {
		t.Fatal(err)
	}
	for _, server := range all {
		if !server.serves() {
			t.Errorf("%d was ended", server.pid)
		}
	}
}

// A child costs a descriptor and a parked goroutine, no thread; not even when
// all of them end at once.
func TestManyChildren(t *testing.T) {
	const n = 300
	trees(t, func(t *testing.T, cgroup string) {
		s := Spec{Instance: "sleep", Argv: []string{lookPath(t, "sleep"), "600"}}
		fds, before := descriptors(t), threads(t)
		var wg sync.WaitGroup
		children := make([]*Process, n)
		for i := range children {
			if cgroup != "" {
				s.Cgroup = fmt.Sprintf("%s-%d", cgroup, i)
			}
			p := start(t, s)
			children[i] = p
			wg.Go(func() {
				if got := takeEnd(t, p); got != (Exit{Signal: "SIGKILL"}) {
					t.Errorf("got %v", got)
				}
			})
		}
		if more := descriptors(t) - fds; more > n+2 {
			t.Errorf("%d children cost %d descriptors", n, more)
		}
		fewThreads(t, before)
		for _, p := range children {
			if err := p.Signal(unix.SIGKILL); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		fewThreads(t, before)
		if more := descriptors(t) - fds; more > 2 {
			t.Errorf("%d descriptors are left", more)
		}
	})
}

// fewThreads asserts the number of design section 10, beside the threads that tests
// before this one have needed, which Go keeps.
func fewThreads(t *testing.T, before int) {
	t.Helper()
	if now := threads(t); now > before+16 {
		t.Errorf("%d threads, there were %d; want at most 16 more", now, before)
	}
}

func threads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

func TestParent(t *testing.T) {
	p := start(t, as(t, "wait"))
	if got, err := parentOf(p.Identity().PID); got != os.Getpid() || err != nil {
		t.Errorf("got %d, %v; want %d", got, err, os.Getpid())
	}
	if _, err := parentOf(1 << 30); !errors.Is(err, ErrGone) {
		t.Errorf("got %v", err)
	}
}

func TestParseStat(t *testing.T) {
	rest := " Z 12 1 1" + strings.Repeat(" 0", 15) + " 4711" + strings.Repeat(" 0", 29) + " 256\n"
	for _, name := range []string{"(sh)", "(a b)", "(a) S 1 (b)", "(\n)"} {
		got, err := parseStat([]byte("34 " + name + rest))
		if want := (stat{state: 'Z', parent: 12, start: 4711, exit: 256}); got != want || err != nil {
			t.Errorf("%q: got %+v, %v", name, got, err)
		}
	}
	for _, text := range []string{"", "34 (sh) Z 12", "34 (sh) Z x" + strings.Repeat(" 0", 60)} {
		if got, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func TestParseStatOfUse(t *testing.T) {
	text := "34 (sh) R 12 1 1" + strings.Repeat(" 0", 7) + " 1000 200 30 -4 20 0 5 0 4711 99999 77" + strings.Repeat(" 0", 27) + " 0\n"
	got, err := parseStat([]byte(text))
	if want := (stat{state: 'R', parent: 12, start: 4711, ticks: 1230, threads: 5, pages: 77}); got != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("34 (sh) Z 12 1 1" + strings.Repeat(" 0", 15) + " 4711" + strings.Repeat(" 0", 29) + " 256\n"))
	f.Add([]byte(""))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := parseStat(text); err == nil && s.state == 0 {
			t.Errorf("%q: got %+v", text, s)
		}
	})
}
