//go:build unix

package server

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// contents tells what is in a directory.
func contents(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// refused is the error of a socket that must not be taken.
func refused(t *testing.T, socket string, uid int, want ...string) *SocketError {
	t.Helper()
	l, err := listen(socket, uid)
	if err == nil {
		l.Close()
		t.Fatalf("%s was taken", socket)
	}
	var e *SocketError
	if !errors.As(err, &e) {
		t.Fatalf("%v is a %T", err, err)
	}
	for _, w := range append(want, `"socket"`) {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
	return e
}

func TestListen(t *testing.T) {
	dir := socketDirectory(t)
	socket := filepath.Join(dir, "socket")
	for range 2 { // nothing is left that would be in the way of the next
		l, err := Listen(socket)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
		if names := contents(t, dir); len(names) != 0 {
			t.Fatalf("%q are left", names)
		}
	}
}

func TestLiveSocketIsNotTaken(t *testing.T) {
	t.Run("of an agent", func(t *testing.T) {
		s := serve(t, newMemory(), os.Getuid())
		e := refused(t, s.socket, os.Geteuid(), s.socket, strconv.Itoa(os.Getpid()))
		if e.PID != os.Getpid() || e.UID != os.Geteuid() {
			t.Errorf("it is said to be of pid %d, uid %d", e.PID, e.UID)
		}
		c, err := net.Dial("unix", s.socket)
		if err != nil {
			t.Fatalf("it does not live any more: %v", err)
		}
		c.Close()
	})
	t.Run("of another program", func(t *testing.T) {
		socket := filepath.Join(socketDirectory(t), "socket")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		refused(t, socket, os.Geteuid(), strconv.Itoa(os.Getpid()))
		if names := contents(t, filepath.Dir(socket)); len(names) != 1 {
			t.Errorf("there are now %q", names)
		}
	})
	t.Run("with a full queue", func(t *testing.T) {
		socket := filepath.Join(socketDirectory(t), "socket")
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: socket}), unix.Listen(fd, 0)); err != nil {
			t.Fatal(err)
		}
		for {
			c, err := net.Dial("unix", socket)
			if err != nil {
				break
			}
			defer c.Close()
		}
		refused(t, socket, os.Geteuid(), "may be listening")
	})
}

// stale makes a socket file on which nobody listens.
func stale(t *testing.T, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

func TestStaleSocketIsTaken(t *testing.T) {
	socket := filepath.Join(socketDirectory(t), "socket")
	stale(t, socket)
	if err := os.WriteFile(socket+lockSuffix, []byte("12345678\n"), 0o600); err != nil { // of an agent that was killed
		t.Fatal(err)
	}
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if pid, err := os.ReadFile(socket + lockSuffix); string(pid) != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("the lock says %q, %v", pid, err)
	}
}

// We play another user: for us, all that is there is then of a foreign one.
func TestForeignSocketIsNotTaken(t *testing.T) {
	us, uid := os.Geteuid(), strconv.Itoa(os.Geteuid())
	t.Run("live", func(t *testing.T) {
		s := serve(t, newMemory(), os.Getuid())
		e := refused(t, s.socket, us+1, "uid "+uid, "process "+strconv.Itoa(os.Getpid()))
		if e.PID != os.Getpid() || e.UID != us {
			t.Errorf("it is said to be of pid %d, uid %d", e.PID, e.UID)
		}
	})
	t.Run("stale", func(t *testing.T) {
		socket := filepath.Join(socketDirectory(t), "socket")
		stale(t, socket)
		refused(t, socket, us+1, "uid "+uid, "remove it")
		if err := makeRoom(socket, us+1); err == nil || !strings.Contains(err.Error(), "uid "+uid) {
			t.Errorf("without a lock in the way: %v", err)
		}
		if _, err := os.Lstat(socket); err != nil {
			t.Error(err)
		}
	})
	t.Run("lock", func(t *testing.T) {
		socket := filepath.Join(socketDirectory(t), "socket")
		if err := os.WriteFile(socket+lockSuffix, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, socket, us+1, socket+lockSuffix, "uid "+uid, "remove it")
	})
	if us != 0 {
		return
	}
	t.Run("for root", func(t *testing.T) {
		socket := filepath.Join(socketDirectory(t), "socket")
		stale(t, socket)
		if err := os.Chown(socket, otherUID, otherUID); err != nil {
			t.Fatal(err)
		}
		refused(t, socket, us, "uid "+strconv.Itoa(otherUID), "we are uid 0")
	})
}

func TestWhatIsNoSocketStays(t *testing.T) {
	for kind, put := range map[string]func(path string) error{
		"a regular file":  func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"a directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"a symbolic link": func(path string) error { return os.Symlink("/nowhere", path) },
		"a special file":  func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		t.Run(kind, func(t *testing.T) {
			socket := filepath.Join(socketDirectory(t), "socket")
			if err := put(socket); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(socket)
			if err != nil {
				t.Fatal(err)
			}
			refused(t, socket, os.Geteuid(), kind)
			if now, err := os.Lstat(socket); err != nil || !os.SameFile(before, now) {
				t.Errorf("it is gone: %v", err)
			}

			lock := filepath.Join(socketDirectory(t), "socket")
			if err := put(lock + lockSuffix); err != nil {
				t.Fatal(err)
			}
			if kind != "a regular file" {
				refused(t, lock, os.Geteuid(), kind, lock+lockSuffix)
			}
			if names := contents(t, filepath.Dir(lock)); len(names) != 1 {
				t.Errorf("there are now %q", names)
			}
		})
	}
}

func TestPathsThatCanNotBe(t *testing.T) {
	dir := socketDirectory(t)
	long := filepath.Join(dir, strings.Repeat("x", 120-len(dir)-1))
	e := refused(t, long, os.Geteuid(), "120 bytes", strconv.Itoa(pathLimit), "shorter path")
	if e.Path != long {
		t.Errorf("the error is about %s", e.Path)
	}
	refused(t, "socket", os.Geteuid(), "absolute")
	refused(t, "@abstract", os.Geteuid(), "absolute")
	refused(t, "", os.Geteuid(), "absolute")
	refused(t, filepath.Join(dir, "none", "socket"), os.Geteuid(), "no such file", filepath.Join(dir, "none"))

	longest := filepath.Join(dir, strings.Repeat("x", pathLimit-len(dir)-1))
	l, err := Listen(longest)
	if err != nil {
		t.Fatalf("%d bytes: %v", len(longest), err)
	}
	l.Close()
}

// A directory that can not be written is named; root may write everywhere, so it
// asks as somebody else.
func TestDirectoryThatCanNotBeWritten(t *testing.T) {
	dir := socketDirectory(t)
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	uid := os.Getuid()
	if uid == 0 {
		uid = otherUID
	}
	c := roleCommand(t, "listener", filepath.Join(dir, "socket"), uid)
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	if text := string(out); !strings.Contains(text, "permission denied") || !strings.Contains(text, dir) {
		t.Errorf("the error is %s", text)
	}
}

// Of many that start together one gets the socket, also when one has just ended,
// and what the others did does not harm it.
func TestManyListenAtOnce(t *testing.T) {
	dir := socketDirectory(t)
	socket := filepath.Join(dir, "socket")
	stale(t, socket)
	for range 20 {
		var won []net.Listener
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				l, err := Listen(socket)
				var e *SocketError
				if err != nil && !errors.As(err, &e) {
					t.Errorf("%v is a %T", err, err)
				}
				if l != nil {
					mu.Lock()
					won = append(won, l)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if len(won) != 1 {
			t.Fatalf("%d have the socket", len(won))
		}
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		won[0].Close()
	}
	if names := contents(t, dir); len(names) != 0 {
		t.Errorf("%q are left", names)
	}
}

// Two agents on one socket: one has it, the other is told by whom.
func TestTwoProcessesRace(t *testing.T) {
	socket := filepath.Join(socketDirectory(t), "socket")
	var out [2]strings.Builder
	var pids [2]int
	refused, winner := make(chan int, 2), make(chan error, 2)
	hold, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	for i := range 2 {
		c := roleCommand(t, "listener", socket, os.Getuid())
		c.Stdin, c.Stdout = hold, &out[i]
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		pids[i] = c.Process.Pid
		go func() {
			err := c.Wait()
			refused <- i
			winner <- err
		}()
	}
	loser := <-refused // the other one waits for release
	release.Close()
	if err := errors.Join(<-winner, <-winner); err != nil {
		t.Fatal(err)
	}
	if out[1-loser].String() != "taken" || !strings.Contains(out[loser].String(), "process "+strconv.Itoa(pids[1-loser])) {
		t.Errorf("they said %q and %q", out[loser].String(), out[1-loser].String())
	}
}

// Who has just taken the lock is waited for until it says who it is.
func TestLockTakenJustNow(t *testing.T) {
	socket := filepath.Join(socketDirectory(t), "socket")
	lock, err := os.Create(socket + lockSuffix)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 1)
	go func() {
		_, err := Listen(socket)
		refused <- err
	}()
	if _, err := lock.WriteString(strconv.Itoa(os.Getpid())); err != nil {
		t.Fatal(err)
	}
	if e, ok := errors.AsType[*SocketError](<-refused); !ok || e.PID != os.Getpid() {
		t.Errorf("got %v", e)
	}
}

// What somebody put in the place of our socket or lock is not ours to remove.
func TestCloseRemovesOnlyItsOwn(t *testing.T) {
	dir := socketDirectory(t)
	socket := filepath.Join(dir, "socket")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{socket, socket + lockSuffix} {
		if err := errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if names := contents(t, dir); len(names) != 2 {
		t.Errorf("only %q are left", names)
	}
}

// A lock that was taken on a removed file is none: the one that is there counts.
func TestLockOnARemovedFile(t *testing.T) {
	socket := filepath.Join(socketDirectory(t), "socket")
	removed, err := os.Create(socket + lockSuffix)
	if err != nil {
		t.Fatal(err)
	}
	defer removed.Close()
	if err := os.Remove(socket + lockSuffix); err != nil {
		t.Fatal(err)
	}
	if l, err := lockFile(socket, removed, os.Geteuid()); l != nil || err != nil {
		t.Errorf("got %v, %v", l, err)
	}
}

// A socket that was kept goes on without a gap, and nobody else gets it.
func TestKeepAndInherit(t *testing.T) {
	socket := filepath.Join(socketDirectory(t), "socket")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	kept, lock, err := Files(l)
	if err != nil {
		t.Fatal(err)
	}
	Keep(l)
	file, err := kept.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(lock.(*os.File).Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	waiting, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal("while nobody serves: ", err)
	}
	defer waiting.Close()
	refused(t, socket, os.Geteuid(), "serves it")
	next, err := Inherit(socket, file, os.NewFile(uintptr(fd), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := next.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if left := contents(t, filepath.Dir(socket)); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}
