package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/agent/process/launch"
)

// The children of these tests are the test binary itself in one of these roles.
// What they say goes to standard output, one line each. They end by
// syscall.Exit, since os.Exit waits for a second where there is the race detector.
const roleKey = "PROCESS_TEST_ROLE"

func TestMain(m *testing.M) {
	roles := map[string]func(args []string){
		"tell": tell, "exit": exit, "die": die, "wait": wait, "obey": obey, "listen": listen,
		"family": family, "fork": fork, "agent": agent, "reuse": reuse, "cgroups": cgroups, "use": use,
		"first": first, "parent": parent, "daemon": daemon,
	}
	if os.Args[0] == "agentexec" {
		fmt.Fprintln(os.Stderr, launch.Main(os.Args))
		syscall.Exit(126)
	}
	if role, ok := roles[os.Getenv(roleKey)]; ok {
		role(os.Args[1:])
		syscall.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// told is what the role tell tells of itself.
type told struct {
	Env       []string
	Args      []string
	Directory string
	PID       int
	Session   int
	Group     int
	Input     string // what standard input is
}

func tell(args []string) {
	dir, _ := os.Getwd()
	sid, _ := unix.Getsid(0)
	input, _ := os.Readlink("/proc/self/fd/0")
	text, _ := json.Marshal(told{os.Environ(), args, dir, os.Getpid(), sid, unix.Getpgrp(), input})
	fmt.Println(string(text))
	fmt.Fprintln(os.Stderr, "and this is an error")
}

func exit(args []string) { syscall.Exit(number(args[0])) }

func die(args []string) {
	_ = unix.Kill(os.Getpid(), unix.Signal(number(args[0])))
	forever()
}

func wait([]string) {
	fmt.Println("ready")
	forever()
}

// obey exits with the code args[0] when it is told to by SIGTERM.
func obey(args []string) {
	order := make(chan os.Signal, 1)
	signal.Notify(order, unix.SIGTERM)
	fmt.Println("ready")
	<-order
	syscall.Exit(number(args[0]))
}

func listen([]string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Printf("listen %d %d\n", os.Getpid(), l.Addr().(*net.TCPAddr).Port)
	forever()
}

// family is a leader with a server in its own group, one in a group of its own,
// and, if args[0] says so, one that is a daemon.
func family(args []string) {
	beget("listen", &syscall.SysProcAttr{})
	beget("listen", &syscall.SysProcAttr{Setpgid: true})
	if args[0] == "daemon" {
		beget("fork", &syscall.SysProcAttr{Setsid: true})
	}
	forever()
}

// fork makes a server that is a daemon: double-forked, in its own session.
func fork([]string) { beget("listen", &syscall.SysProcAttr{Setsid: true}) }

// daemon has a server in a session of its own, and goes on until SIGTERM.
func daemon([]string) {
	order := make(chan os.Signal, 1)
	signal.Notify(order, unix.SIGTERM)
	fork(nil)
	<-order
}

func beget(role string, sys *syscall.SysProcAttr) {
	_, err := os.StartProcess("/proc/self/exe", []string{role}, &os.ProcAttr{
		Env: []string{roleKey + "=" + role}, Files: []*os.File{nil, os.Stdout, os.Stderr}, Sys: sys})
	check(err)
}

// agent starts the Spec args[0], tells its Identity, and then, as args[1] says:
// "leave": ends; "reap": reaps the child as soon as it ends; "sit": does nothing.
func agent(args []string) {
	var s Spec
	check(json.Unmarshal([]byte(args[0]), &s))
	p, err := Start(s)
	check(err)
	text, _ := json.Marshal(p.Identity())
	fmt.Println(string(text))
	switch args[1] {
	case "reap":
		fmt.Println(p.Reap())
	case "sit":
		forever()
	}
}

// cgroups tells where those of an agent would be that is where we are.
func cgroups(args []string) {
	root, err := Cgroups(args[0])
	check(err)
	fmt.Println(root)
}

func forever() {
	for {
		_ = unix.Pause()
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	check(err)
	return n
}

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		syscall.Exit(99)
	}
}

// as is the Spec of this binary in a role, with a log of its own.
func as(t testing.TB, role string, args ...string) Spec {
	return Spec{Instance: "test", Argv: append([]string{"/proc/self/exe"}, args...),
		Env: []string{roleKey + "=" + role}, Directory: t.TempDir(), Log: filepath.Join(t.TempDir(), "log")}
}

func start(t testing.TB, s Spec) *Process {
	t.Helper()
	p, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, p) })
	return p
}

// finish ends p, whatever its state, and leaves nothing of it.
func finish(t testing.TB, p *Process) Exit {
	t.Helper()
	if err := p.KillTree(); err != nil && !errors.Is(err, ErrGone) {
		t.Error(err)
	}
	return takeEnd(t, p)
}

// takeEnd is the end of a process in the right order.
func takeEnd(t testing.TB, p *Process) Exit {
	t.Helper()
	if err := p.AwaitEnd(); err != nil {
		t.Error(err)
	}
	seen := p.Seen()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if left, err := p.Empty(ctx); !errors.Is(err, ErrGone) && (err != nil || len(left) > 0) {
		t.Errorf("left %v: %v", left, err)
	}
	exit := p.Reap()
	if seen != exit && (p.Child() || !seen.Unknown) {
		t.Errorf("%v was seen, and then it was %v", seen, exit)
	}
	return exit
}

// lines waits until the file has n complete lines.
func lines(t testing.TB, file string, n int) []string {
	t.Helper()
	var all []string
	until(t, func() bool {
		text, _ := os.ReadFile(file)
		all = strings.SplitAfter(string(text), "\n")
		return len(all) > n
	})
	return all[:n]
}

// until waits for a condition that no event announces.
func until(t testing.TB, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within a minute")
		}
	}
}

// server is what the role listen tells of itself.
type server struct{ pid, port int }

func servers(t testing.TB, file string, n int) []server {
	t.Helper()
	all := make([]server, n)
	for i, line := range lines(t, file, n) {
		if _, err := fmt.Sscanf(line, "listen %d %d", &all[i].pid, &all[i].port); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	return all
}

// serves tells whether somebody accepts on the port.
func (s server) serves() bool {
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// state is the letter of /proc/pid/stat; 0 if there is no such process.
func state(pid int) byte {
	s, _ := readStat(pid)
	return s.state
}

// trees calls f once with a cgroup for the process and once without, as far as
// this machine has cgroups.
func trees(t *testing.T, f func(t *testing.T, cgroup string)) {
	t.Run("session", func(t *testing.T) { f(t, "") })
	root, err := testCgroups(t)
	if err != nil {
		t.Logf("sessions only: %v", err)
		return
	}
	t.Run("cgroup", func(t *testing.T) { f(t, filepath.Join(root, "instance")) })
}

func testCgroups(t testing.TB) (string, error) {
	root, err := Cgroups(fmt.Sprintf("process-test-%d", os.Getpid()))
	if err == nil {
		t.Cleanup(func() {
			if err := RemoveCgroups(root); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
				left, err := EmptyCgroup(context.Background(), root)
				t.Errorf("%s was still there: %v, %v", root, left, err)
			}
		})
	}
	return root, err
}

func lookPath(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
