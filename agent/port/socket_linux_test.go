package port

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/allexgo/machine-agent/lan/table"
)

// listenAlone listens like a program that sets no SO_REUSEADDR.
func listenAlone(number int) (socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return none, err
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: number, Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		unix.Close(fd)
		return none, err
	}
	return socket(fd), nil
}

func (s socket) Close() { s.close() }

// A port of which closed connections are remembered is none for a program that sets no
// SO_REUSEADDR, and one like others for those that do.
func TestReleasedAfterConnections(t *testing.T) {
	o, p := office(t, 2)
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", p))
	if err != nil {
		t.Fatal(err)
	}
	caller, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	answerer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	answerer.Close() // first, and so it is remembered on this side
	l.Close()
	_, _ = caller.Read(make([]byte, 1))
	caller.Close()

	r := Request{Instance: "released", Protocols: []Protocol{TCP}, Mode: Released, Preferred: table.Ports{TCP: p}}
	if got := mustLease(t, o, r); got.TCP != p+1 {
		t.Errorf("its program would be refused: %+v", got)
	}
	r.Instance, r.Mode = "reserved", Reserved
	if got := mustLease(t, o, r); got.TCP != p {
		t.Errorf("it could have %d: %+v", p, got)
	}
}

func TestReservedHolds(t *testing.T) {
	first := block(t, 2)
	for i, family := range []func(int, bool) (socket, error){bind, bind4} {
		number := first + i
		s, err := family(number, true)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		if _, err := listenAlone(number); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a stranger's bind: %v, want EADDRINUSE", err)
		}
		refused(t, number)
		for _, address := range []string{"127.0.0.1", "0.0.0.0", "[::1]", "[::]"} {
			if i == 1 && address[0] == '[' {
				continue
			}
			serves(t, fmt.Sprintf("%s:%d", address, number))
			refused(t, number)
		}
	}
}

// refused checks that nobody answers.
func refused(t *testing.T, number int) {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", number))
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect: %v, want a refusal", err)
	}
	if err == nil {
		c.Close()
	}
}

// serves checks that an ordinary server, which sets SO_REUSEADDR, is reached
// there, and again when it comes back behind a connection that it closed itself.
func serves(t *testing.T, address string) {
	t.Helper()
	for range 2 {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatalf("the instance's own server: %v", err)
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		served, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		served.Close() // leaves TIME_WAIT on the server's side
		c.Close()
		l.Close()
	}
}

// What a fixed port waits for is told as it is: nobody listens there any more.
func TestTakenByConnectionsThatEnded(t *testing.T) {
	o, number := office(t, 3)
	serves(t, fmt.Sprintf("127.0.0.1:%d", number))
	for mode, silent := range map[Mode]bool{Released: true, Reserved: false} {
		_, err := o.Lease(Request{Instance: "a", Protocols: []Protocol{HTTP}, Mode: mode, Fixed: table.Ports{HTTP: number}})
		taken, refused := errors.AsType[*TakenError](err)
		if refused != silent || refused && !(taken.Silent && strings.Contains(err.Error(), "TIME_WAIT")) {
			t.Errorf("%s: got %v", mode, err)
		}
		o.Release("a")
	}
	stranger(t, number+1)
	_, err := o.Lease(Request{Instance: "a", Protocols: []Protocol{HTTP}, Mode: Released, Fixed: table.Ports{HTTP: number + 1}})
	if taken, ok := errors.AsType[*TakenError](err); !ok || taken.Silent {
		t.Errorf("somebody listens: got %v", err)
	}
}

func TestNotHeldByExec(t *testing.T) {
	s, err := hold(block(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if flags, err := unix.FcntlInt(uintptr(s), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v: a child would inherit the socket", flags, err)
	}
}

func TestReleased(t *testing.T) {
	o, p := office(t, 2)
	mustLease(t, o, Request{Instance: "released", Protocols: []Protocol{TCP}, Mode: Released})
	mustLease(t, o, Request{Instance: "reserved", Protocols: []Protocol{TCP}, Mode: Reserved})
	if bindable(p) {
		t.Error("a released port is not held before LetGo")
	}
	o.LetGo("released")
	o.LetGo("released")
	o.LetGo("reserved")
	if !bindable(p) {
		t.Error("the released port can not be had after LetGo")
	}
	if bindable(p + 1) {
		t.Error("LetGo let a reserved port go")
	}
	var taken *TakenError
	if err := o.Free(table.Ports{TCP: p}, "other"); !errors.As(err, &taken) || taken.Holder != "released" {
		t.Errorf("the lease is gone with the socket: %v", err)
	}
}

// Running out of descriptors is not running out of ports.
func TestTooManyFiles(t *testing.T) {
	o, p := office(t, 2)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := unix.Rlimit{Cur: 3, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	_, free := o.Lease(Request{Instance: "a", Protocols: all, Mode: Reserved})
	_, fixed := o.Lease(Request{Instance: "a", Protocols: all, Mode: Reserved, Fixed: table.Ports{TCP: p}})
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{free, fixed} {
		if !errors.Is(err, syscall.EMFILE) {
			t.Errorf("got %v, want EMFILE", err)
		}
	}
}

// openFiles counts this process's descriptors.
func openFiles(t interface{ Fatal(...any) }) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// machine is the model against which random walks check an Office: who has which
// port of a small world, which of them a socket of the office holds, and which
// ports strangers listen on.
type machine struct {
	o         *Office
	first     int
	files     int
	holder    map[int]string
	held      map[int]bool
	strangers map[int]socket
}

const (
	walkRange = 4               // ports a protocol
	walkPorts = 3*walkRange + 2 // and two outside of the ranges
)

// TestOneHolder walks at random. After every step a port has at most one holder,
// the one of the model; what is held is really held, what is not is not; and
// descriptors are exactly those of the held ports.
func TestOneHolder(t *testing.T) {
	first := block(t, walkPorts)
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{first: first, files: openFiles(t),
			holder: map[int]string{}, held: map[int]bool{}, strangers: map[int]socket{}}
		m.o = NewOffice(Range{Start: first, Size: walkRange},
			Range{Start: first + walkRange, Size: walkRange}, Range{Start: first + 2*walkRange, Size: walkRange}, 0)
		defer func() {
			for _, s := range m.strangers {
				s.close()
			}
			m.o.Close()
			if got := openFiles(t); got != m.files {
				t.Fatalf("%d descriptors left open", got-m.files)
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"":          m.check,
			"lease":     m.lease,
			"adopt":     func(t *rapid.T) { m.record(t, m.o.Adopt) },
			"outside":   func(t *rapid.T) { m.record(t, m.o.Outside) },
			"let go":    m.letGo,
			"release":   func(t *rapid.T) { i := instance(t); m.o.Release(i); m.forget(i) },
			"listening": func(t *rapid.T) { m.o.Listening(instance(t)) },
			"free":      func(t *rapid.T) { _ = m.o.Free(m.ports(t), instance(t)) },
			"stranger":  m.stranger,
		})
	})
}

func instance(t *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "instance")
}

func (m *machine) ports(t *rapid.T) table.Ports {
	number := rapid.OneOf(rapid.Just(0), rapid.Just(0), rapid.IntRange(m.first, m.first+walkPorts-1))
	return table.Ports{TCP: number.Draw(t, "tcp"), HTTP: number.Draw(t, "http"), WS: number.Draw(t, "ws")}
}

func (m *machine) lease(t *rapid.T) {
	r := Request{
		Instance:  instance(t),
		Protocols: rapid.SliceOfDistinct(rapid.SampledFrom(all), rapid.ID[Protocol]).Draw(t, "protocols"),
		Mode:      rapid.SampledFrom([]Mode{Reserved, Released}).Draw(t, "mode"),
		Fixed:     m.ports(t), Preferred: m.ports(t),
	}
	before, had := m.o.Of(r.Instance)
	ports, err := m.o.Lease(r)
	if had || err != nil {
		if after, _ := m.o.Of(r.Instance); err == nil || after != before {
			t.Fatalf("%+v, %v: the instance had %+v and has %+v", ports, err, before, after)
		}
		m.justified(t, r, err)
		return
	}
	for _, p := range r.Protocols {
		number, fixed := *of(&ports, p), *of(&r.Fixed, p)
		if number == 0 || fixed != 0 && number != fixed {
			t.Fatalf("%s: port %d, fixed %d", p, number, fixed)
		}
		if fixed == 0 && (number < m.o.ranges[p-1].Start || number > m.o.ranges[p-1].last()) {
			t.Fatalf("%s: port %d is out of range", p, number)
		}
		m.give(t, number, r.Instance)
		m.held[number] = true
	}
}

// justified checks that a refusal tells the truth.
func (m *machine) justified(t *rapid.T, r Request, err error) {
	var taken *TakenError
	var exhausted *ExhaustedError
	switch {
	case errors.As(err, &taken):
		_, strange := m.strangers[taken.Port]
		itself := taken.Holder == r.Instance // one number wanted twice
		if !itself && m.holder[taken.Port] != taken.Holder || taken.Holder == "" && !strange {
			t.Fatalf("%v: holder %q, stranger %v", err, m.holder[taken.Port], strange)
		}
	case errors.As(err, &exhausted):
		if exhausted.Leased+exhausted.Strangers != walkRange {
			t.Fatalf("%v: %d ports are free", err, walkRange-exhausted.Leased-exhausted.Strangers)
		}
	}
}

func (m *machine) record(t *rapid.T, record func(string, table.Ports) error) {
	i, ports := instance(t), m.ports(t)
	before, _ := m.o.Of(i)
	if record(i, ports) != nil {
		if after, _ := m.o.Of(i); after != before {
			t.Fatalf("refused, but %+v became %+v", before, after)
		}
		return
	}
	for p, number := range each(before) {
		if *of(&ports, p) != number {
			delete(m.holder, number)
			delete(m.held, number)
		}
	}
	for p, number := range each(ports) {
		if *of(&before, p) != number {
			m.give(t, number, i)
		}
	}
}

func (m *machine) give(t *rapid.T, number int, instance string) {
	if other, ok := m.holder[number]; ok {
		t.Fatalf("port %d went to %s, but %s has it", number, instance, other)
	}
	m.holder[number] = instance
}

func (m *machine) forget(instance string) {
	for number, holder := range m.holder {
		if holder == instance {
			delete(m.holder, number)
			delete(m.held, number)
		}
	}
}

func (m *machine) letGo(t *rapid.T) {
	i := instance(t)
	m.o.LetGo(i)
	for _, l := range m.o.byInstance[i] {
		if l.mode == Released {
			delete(m.held, l.Port)
		}
	}
}

// stranger makes a stranger come to a port, or go from it. None can where the
// office holds the port.
func (m *machine) stranger(t *rapid.T) {
	number := rapid.IntRange(m.first, m.first+walkPorts-1).Draw(t, "port")
	if s, ok := m.strangers[number]; ok {
		s.close()
		delete(m.strangers, number)
		return
	}
	s, err := listenAlone(number)
	if (err != nil) != m.held[number] {
		t.Fatalf("a stranger's bind of port %d: %v; held: %v", number, err, m.held[number])
	}
	if err == nil {
		m.strangers[number] = s
	}
}

func (m *machine) check(t *rapid.T) {
	leases := m.o.All()
	for i, l := range leases {
		if m.holder[l.Port] != l.Instance {
			t.Fatalf("%+v, but its holder is %q", l, m.holder[l.Port])
		}
		if i > 0 && leases[i-1].Port >= l.Port {
			t.Fatalf("two leases of one port, or no order: %+v", leases)
		}
		if ports, _ := m.o.Of(l.Instance); *of(&ports, l.Protocol) != l.Port {
			t.Fatalf("%+v, but the instance has %+v", l, ports)
		}
		if m.held[l.Port] && bindable(l.Port) {
			t.Fatalf("%+v is not held", l)
		}
	}
	if len(leases) != len(m.holder) {
		t.Fatalf("%d leases, want %v", len(leases), m.holder)
	}
	if got, want := openFiles(t), m.files+len(m.held)+len(m.strangers); got != want {
		t.Fatalf("%d descriptors, want %d", got, want)
	}
}

// What the program before us held goes on being held, for whom it is leased to, and
// what is leased to nobody is let go.
func TestInherit(t *testing.T) {
	before, first := office(t, 10)
	ports := mustLease(t, before, Request{Instance: "a", Protocols: []Protocol{TCP, HTTP}})
	now := NewOffice(Range{Start: first, Size: 10}, Range{Start: first + 10, Size: 10}, Range{Start: first + 20, Size: 10}, 0)
	defer now.Close()
	now.Inherit(before.Duplicates())
	before.Close()
	if err := now.Adopt("a", table.Ports{TCP: ports.TCP}); err != nil {
		t.Fatal(err)
	}
	now.Settle()
	if bindable(ports.TCP) || !bindable(ports.HTTP) {
		t.Errorf("a stranger could bind the leased port: %v, the other one: %v", bindable(ports.TCP), bindable(ports.HTTP))
	}
}
