package process

import (
	"errors"
	"net"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListens(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("no IPv6 here: %v", err)
			continue
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		other := start(t, as(t, "wait")).Identity().PID
		for _, test := range []struct {
			pid, port int
			want      bool
		}{{os.Getpid(), port, true}, {other, port, false}, {os.Getpid(), free(t), false}} {
			if got, err := Listens(test.pid, test.port); got != test.want || err != nil {
				t.Errorf("%s, pid %d, port %d: got %v, %v", address, test.pid, test.port, got, err)
			}
		}
		if _, err := Listens(1<<30, port); !errors.Is(err, ErrGone) {
			t.Errorf("nobody: %v", err)
		}
	}
}

// A port that is only bound, as the port office does, is not listened on; nor
// is one with a connection only.
func TestListensNot(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*unix.SockaddrInet4).Port
	for _, step := range []func(){func() {}, func() { connect(t, fd) }} {
		step()
		if got, err := Listens(os.Getpid(), port); got || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	}
}

func connect(t *testing.T, fd int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	port := l.Addr().(*net.TCPAddr).Port
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
}

// The server of a child's child is the child's.
func TestProcessListens(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		p, all := startFamily(t, cgroup)
		mine, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer mine.Close()
		for _, server := range all {
			if got, err := p.Listens(server.port); !got || err != nil {
				t.Errorf("port %d: got %v, %v", server.port, got, err)
			}
		}
		if got, err := p.Listens(mine.Addr().(*net.TCPAddr).Port); got || err != nil {
			t.Errorf("a stranger's port: got %v, %v", got, err)
		}
		leader, err := Watch(p.Identity().PID)
		if err != nil {
			t.Fatal(err)
		}
		defer leader.Close()
		if got, err := leader.Listens(all[0].port); got || err != nil {
			t.Errorf("of an outside process only the leader counts: got %v, %v", got, err)
		}
	})
}

// Both ways to ask give the same answer.
func TestListeners(t *testing.T) {
	var ports []int
	for _, address := range []string{"127.0.0.1:0", "127.0.0.2:0", "[::]:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("no IPv6 here: %v", err)
			continue
		}
		defer l.Close()
		want := l.Addr().(*net.TCPAddr).AddrPort()
		ports = append(ports, int(want.Port()))
		found, err := Listeners(int(want.Port()))
		if err != nil || len(found) != 1 || found[0].Address != want {
			t.Errorf("%s: %v, %v", want, found, err)
		}
	}
	for _, port := range append(ports, free(t)) {
		fast, err1 := byNetlink(port, 1<<stateListen)
		slow, err2 := listenersByTable(port)
		for i := range fast {
			fast[i].cgroup = 0 // which the table does not tell
		}
		if err1 != nil || err2 != nil || !slices.Equal(fast, slow) || len(fast) > 1 {
			t.Errorf("port %d: %v, %v; %v, %v", port, fast, err1, slow, err2)
		}
	}
	all, err := Listeners(0)
	for _, port := range ports {
		if !slices.ContainsFunc(all, func(l Listener) bool { return int(l.Address.Port()) == port }) {
			t.Errorf("port %d is not among all (%v)", port, err)
		}
	}
}

// Where sockets tell their cgroup, the owner is known without a look at its
// descriptors.
func TestOwnsByCgroup(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		p, all := startFamily(t, cgroup)
		found, err := Listeners(all[0].port)
		if err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
		if cgroup == "" || found[0].cgroup == 0 {
			t.Logf("its cgroup %q, the socket's %d", cgroup, found[0].cgroup)
			return
		}
		found[0].Inode = 0 // so that nothing else can tell
		if owns, err := p.Owns(found); !owns || err != nil {
			t.Errorf("got %v, %v", owns, err)
		}
	})
}

// BenchmarkOwners asks for the owners of three thousand ports in one go.
func BenchmarkOwners(b *testing.B) {
	const ports = 3000
	for range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
	}
	for b.Loop() {
		if found, err := Listeners(0); err != nil || len(found) < ports {
			b.Fatal(len(found), err)
		}
	}
}

func FuzzDiagReply(f *testing.F) {
	f.Add(make([]byte, 16))
	f.Add(make([]byte, 100))
	f.Add([]byte{200, 0, 0, 0, unix.SOCK_DIAG_BY_FAMILY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(append([]byte{88, 0, 0, 0, unix.SOCK_DIAG_BY_FAMILY}, make([]byte, 83)...))
	f.Add(append([]byte{16, 0, 0, 0, unix.NLMSG_DONE}, make([]byte, 11)...))
	f.Fuzz(func(t *testing.T, reply []byte) {
		found, _, err := diagReply(reply, nil)
		if err == nil && len(found) > len(reply)/88 {
			t.Errorf("%d sockets out of %d bytes", len(found), len(reply))
		}
	})
}

// free is a port of the loopback on which nobody listens.
func free(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
