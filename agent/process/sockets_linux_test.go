package process

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// listening is a socket that listens, close-on-exec, and its port.
func listening(t *testing.T) (fd, port int) {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return int(file.Fd()), l.Addr().(*net.TCPAddr).Port
}

// A child gets its sockets from descriptor 3 on, in order, and knows that they
// are meant for it; a child without sockets gets none of another's.
func TestSockets(t *testing.T) {
	first, firstPort := listening(t)
	second, secondPort := listening(t)
	const show = `echo "$LISTEN_FDS $LISTEN_FDNAMES $(($LISTEN_PID - $$))"; for fd in 3 4 5; do readlink /proc/$$/fd/$fd || echo none; done`
	s := script(t, show)
	s.Limits = Limits{Umask: ptr(0o027)} // both at once
	s.Sockets = []Socket{{"tcp", first}, {"ws", second}}
	inode := func(port int) uint64 {
		found, err := Listeners(port)
		if err != nil || len(found) != 1 {
			t.Fatalf("port %d: %v, %v", port, found, err)
		}
		return found[0].Inode
	}
	want := fmt.Sprintf("2 tcp:ws 0\nsocket:[%d]\nsocket:[%d]\nnone", inode(firstPort), inode(secondPort))
	if got := output(t, s); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	if got := output(t, script(t, `echo "$LISTEN_FDS"; for fd in 3 4 5; do readlink /proc/$$/fd/$fd || echo none; done`)); got != "none\nnone\nnone" {
		t.Errorf("without sockets it has:\n%s", got)
	}
}

func TestSocketsNeedLauncher(t *testing.T) {
	s := script(t, "true")
	fd, _ := listening(t)
	s.Sockets, s.Launcher = []Socket{{"http", fd}}, "/nonexistent"
	if _, err := Start(s); err == nil || !strings.Contains(err.Error(), "agentexec") {
		t.Errorf("it started: %v", err)
	}
}

// What was passed to a process can be fetched back, also from behind a leader that
// has closed it, and is the same socket.
func TestTake(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		for _, text := range []string{"echo up; exec sleep 1000", "(echo up; exec sleep 1000) & exec 3<&-; wait"} {
			fd, port := listening(t)
			s := script(t, text)
			s.Cgroup, s.Sockets = cgroup, []Socket{{"http", fd}}
			p := start(t, s)
			lines(t, s.Log, 1)
			found, err := Listeners(port)
			if err != nil || len(found) != 1 {
				t.Fatalf("%v, %v", found, err)
			}
			fds, err := p.Take(found)
			if err != nil || len(fds) != 1 {
				t.Fatalf("%s: took %v, %v", text, fds, err)
			}
			defer unix.Close(fds[port])
			link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fds[port]))
			if want := fmt.Sprintf("socket:[%d]", found[0].Inode); err != nil || link != want {
				t.Errorf("%s: took %s, %v, want %s", text, link, err, want)
			}
			if flags, err := unix.FcntlInt(uintptr(fds[port]), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("flags %#x, %v: every child would inherit it", flags, err)
			}
			if err := p.KillTree(); err != nil {
				t.Fatal(err)
			}
			takeEnd(t, p)
		}
	})
}

// A port that is only bound is seen too, on kernels that tell.
func TestBound(t *testing.T) {
	bound := func(port int) (fd int) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	port := free(t)
	fd := bound(port)
	bound(free(t)) // not asked for
	var want []Listener
	if tellsBound(t) {
		var info unix.Stat_t
		if err := unix.Fstat(fd, &info); err != nil {
			t.Fatal(err)
		}
		want = []Listener{{Address: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port)), Inode: info.Ino}}
	}
	found, err := Bound(port)
	for n := range found {
		found[n].cgroup = 0
	}
	if err != nil || !slices.Equal(found, want) {
		t.Errorf("bound are %v, %v, want %v", found, err, want)
	}
	if listening, err := Listeners(port); err != nil || len(listening) > 0 {
		t.Errorf("listening are %v, %v", listening, err)
	}
	if len(want) == 0 {
		return
	}
	if who := Holders(found)[want[0].Inode]; !strings.HasPrefix(who, fmt.Sprintf("pid %d (", os.Getpid())) {
		t.Errorf("it is held by %q", who)
	}
}

// tellsBound: Linux 6.8 was the first to.
func tellsBound(t *testing.T) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > 6 || major == 6 && minor >= 8
}
