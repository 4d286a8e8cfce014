package notify

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/agent/process"
)

// senderRole makes the test binary say its arguments on NOTIFY_SOCKET, one datagram
// each, and end.
const senderRole = "NOTIFY_TEST_SENDER"

func TestMain(m *testing.M) {
	if os.Getenv(senderRole) != "" {
		for _, text := range os.Args[1:] {
			say(os.Getenv("NOTIFY_SOCKET"), text, nil)
		}
		syscall.Exit(0) // os.Exit waits for a second where there is the race detector
	}
	goleak.VerifyTestMain(m)
}

// say sends one datagram, with descriptors.
func say(path, text string, fds []int) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	defer unix.Close(fd)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(fd, []byte(text), rights, &unix.SockaddrUnix{Name: path}, 0); err != nil {
		panic(err)
	}
}

// patience is how long an event that certainly comes is waited for.
const patience = 20 * time.Second

// socket is a Socket that is served until the test ends, and its log.
func socket(t *testing.T) (*Socket, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	dir, err := os.MkdirTemp("", "") // short, as the paths of sockets have to be
	if err != nil {
		t.Fatal(err)
	}
	s, err := Listen(filepath.Join(dir, "s"), hclog.New(&hclog.LoggerOptions{Output: &log}))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(s.Serve)
	t.Cleanup(func() {
		s.Close()
		serving.Wait()
		os.RemoveAll(dir)
	})
	return s, &log
}

// start starts a shell that does script, in which $SAY is the sender, in a cgroup
// of its own if there are any.
func start(t *testing.T, s *Socket, script string) *process.Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spec := process.Spec{
		Instance: t.Name(), Argv: []string{"/bin/sh", "-c", script},
		Env: []string{"PATH=" + os.Getenv("PATH"), senderRole + "=1", "SAY=" + self, "NOTIFY_SOCKET=" + s.Path()},
	}
	if root, err := process.Cgroups(fmt.Sprintf("notify-test-%d", os.Getpid())); err == nil {
		spec.Cgroup = filepath.Join(root, "i-"+t.Name())
		t.Cleanup(func() { process.RemoveCgroups(root) })
	}
	p, err := process.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.KillTree()
		_ = p.AwaitEnd()
		if _, err := p.Empty(context.Background()); err != nil {
			t.Error(err)
		}
		p.Reap()
	})
	return p
}

// waiting is how many messages wait for the process that is expected.
func (s *Socket) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.unclaimed)
}

// heard waits until the inbox has a message.
func heard(t *testing.T, b *Inbox) Message {
	t.Helper()
	for {
		select {
		case <-b.Said():
		case <-time.After(patience):
			t.Fatal("nothing was heard")
		}
		if m, said := b.Take(); said {
			m.Done()
			return m
		}
	}
}

// cgroups tells whether processes can be told apart after their end.
func cgroups() bool {
	_, err := process.Cgroups(fmt.Sprintf("notify-test-%d", os.Getpid()))
	return err == nil
}

// A sender that lives for a moment only is part of the tree that started it, be it
// that the tree is not known yet when it speaks.
func TestShortLived(t *testing.T) {
	s, log := socket(t)
	b := s.Expect()
	defer b.Close()
	script := `"$SAY" READY=1 STATUS=up; echo; exec sleep 1000`
	if !cgroups() { // who has ended can not be told from a stranger
		script = `"$SAY" READY=1 STATUS=up & exec sleep 1000`
	}
	p := start(t, s, script)
	for began := time.Now(); s.waiting() < 2 && time.Since(began) < patience; {
		<-time.After(time.Millisecond)
	}
	b.Bind(p)
	if m := heard(t, b); !m.Ready || m.Status == nil || *m.Status != "up" {
		t.Errorf("heard %+v", m)
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", log)
	}
}

// What strangers say is counted, told once, and not believed, and neither is it
// when it comes while a process is expected.
func TestStranger(t *testing.T) {
	s, log := socket(t)
	b := s.Expect()
	p := start(t, s, "exec sleep 1000")
	say(s.Path(), "READY=1", nil)
	s.Catch()
	b.Bind(p)
	say(s.Path(), "READY=1", nil)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sender := exec.Command(self, "READY=1") // who is gone when it is read
	sender.Env = []string{senderRole + "=1", "NOTIFY_SOCKET=" + s.Path()}
	if err := sender.Run(); err != nil {
		t.Fatal(err)
	}
	s.Catch()
	if m, said := b.Take(); said {
		t.Errorf("heard %+v", m)
	}
	b.Close()
	b.Close()
	s.mu.Lock()
	count := s.strangers[os.Getuid()]
	s.mu.Unlock()
	if count != 3 || strings.Count(log.String(), "not believed") != 1 {
		t.Errorf("counted %d, logged %s", count, log)
	}
	s.Close()
	if !strings.Contains(log.String(), "count=3") {
		t.Errorf("logged %s", log)
	}
}

// One process is never heard as another one.
func TestEachItsOwn(t *testing.T) {
	s, _ := socket(t)
	first, second := s.Expect(), s.Expect()
	defer first.Close()
	defer second.Close()
	first.Bind(start(t, s, "exec sleep 1000"))
	t.Run("second", func(t *testing.T) {
		second.Bind(start(t, s, `"$SAY" READY=1 & exec sleep 1000`))
		heard(t, second)
	})
	if m, said := first.Take(); said {
		t.Errorf("the first is heard with %+v", m)
	}
}

// A barrier opens when what was said before it is done, and no earlier; other
// descriptors are closed at once.
func TestDescriptors(t *testing.T) {
	s, _ := socket(t)
	b := s.Expect() // all that comes is kept for it
	defer b.Close()
	open := func(fd int) bool {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(fds, 0)
		return err != nil || fds[0].Revents&unix.POLLHUP == 0
	}
	pipe := func() (r, w int) {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(p[0]) })
		return p[0], p[1]
	}
	barrier, w := pipe()
	say(s.Path(), "BARRIER=1", []int{w})
	unix.Close(w)
	other, w := pipe()
	say(s.Path(), "FDSTORE=1", []int{w, w, w})
	unix.Close(w)
	s.Catch()
	if !open(barrier) || open(other) {
		t.Errorf("the barrier is held: %v, the others are: %v", open(barrier), open(other))
	}
	s.mu.Lock()
	for _, l := range s.unclaimed {
		b.put(l.message)
	}
	s.unclaimed = nil
	s.mu.Unlock()
	m, _ := b.Take()
	if !m.Barrier || !m.Store || !open(barrier) {
		t.Errorf("taken %+v, the barrier is held: %v", m, open(barrier))
	}
	m.Done()
	if open(barrier) {
		t.Error("the barrier is still held")
	}
}

// However much is said, what is kept is one message.
func TestFlood(t *testing.T) {
	s, _ := socket(t)
	b := s.Expect()
	defer b.Close()
	b.Bind(start(t, s, `for i in 1 2 3 4 5 6 7 8 9; do "$SAY" STATUS=1 STATUS=2 WATCHDOG=1 STATUS=3 & done; wait; "$SAY" STATUS=last & exec sleep 1000`))
	for last := ""; last != "last"; {
		if m := heard(t, b); m.Status != nil {
			last = *m.Status
		}
	}
	var large [maxMessage + 100]byte
	b.Close()
	c := s.Expect()
	defer c.Close()
	say(s.Path(), "READY=1\nSTATUS="+string(bytes.Repeat([]byte("x"), len(large))), nil)
	s.Catch()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unclaimed) != 1 || s.unclaimed[0].message.Ready || len(s.unclaimed[0].message.Problems) != 1 {
		t.Errorf("a message that is too long is %+v", s.unclaimed)
	}
}

// Everybody may send; what is not ours is left alone; what a dead agent of ours
// left is replaced, and nothing is left.
func TestListen(t *testing.T) {
	s, _ := socket(t)
	if info, err := os.Stat(s.Path()); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	if _, err := Listen(s.Path(), hclog.NewNullLogger()); err == nil || !strings.Contains(err.Error(), "other program reads it") {
		t.Errorf("a live one: %v", err)
	}
	s.Close()
	if _, err := os.Stat(s.Path()); !os.IsNotExist(err) {
		t.Errorf("after Close: %v", err)
	}

	dead, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.Path(), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	dead.Close() // which leaves the file
	again, err := Listen(s.Path(), hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.Path()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again.Close()
	if _, err := Listen(s.Path(), hclog.NewNullLogger()); err == nil || !strings.Contains(err.Error(), "not ours") {
		t.Errorf("what is no socket: %v", err)
	}
	if _, err := os.Stat(s.Path()); err != nil {
		t.Errorf("what somebody else put there is gone: %v", err)
	}
	if _, err := Listen(filepath.Join(s.Path()+strings.Repeat("x", 200)), hclog.NewNullLogger()); err == nil {
		t.Error("a path that is too long is taken")
	}
}

// What is said while one program becomes another is heard by the next.
func TestKeepAndInherit(t *testing.T) {
	before, _ := socket(t)
	file, err := before.Conn().(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	before.Keep()
	before.Close()
	done := filepath.Join(t.TempDir(), "done")
	p := start(t, before, `"$SAY" READY=1; echo >`+done+`; exec sleep 1000`)
	for began := time.Now(); time.Since(began) < patience; <-time.After(time.Millisecond) {
		if _, err := os.Stat(done); err == nil {
			break
		}
	}
	next, err := Inherit(before.Path(), file, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	b := next.Expect()
	defer b.Close()
	b.Bind(p)
	var serving sync.WaitGroup
	serving.Go(next.Serve)
	if m := heard(t, b); !m.Ready {
		t.Errorf("heard %+v", m)
	}
	next.Close()
	serving.Wait()
	if _, err := os.Lstat(next.Path()); err == nil {
		t.Errorf("%s is left", next.Path())
	}
}
