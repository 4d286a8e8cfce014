package probe

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A server that is behind lets callers wait at its door: they are patient as long as
// they may be, and are let in when it goes on.
func TestFullDoor(t *testing.T) {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	door := os.NewFile(uintptr(listener), "door")
	defer door.Close()
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(listener, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*unix.SockaddrInet4).Port
	waiting, err := dial(t.Context(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close() // which has the only place

	check(t, Port("127.0.0.1", []int{port}, mine), "timeout")
	check(t, TCP("127.0.0.1", port, "PING\r\n", nil, mine), "timeout")
	if err := HTTP("127.0.0.1", port, "/", mine).Once(soon(t)); !errors.Is(err, errOver) {
		t.Errorf("got %v", err)
	}
	let := make(chan error, 1)
	go func() { let <- connect(t.Context(), "127.0.0.1", port) }()
	for range 2 {
		fd, _, err := unix.Accept(listener)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	if err := <-let; err != nil {
		t.Error(err)
	}
}
