package probe

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

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

// mine has every port in the right hands.
func mine(int) error { return nil }

func TestPortQuick(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := Port("127.0.0.1", []int{free(t), l.Addr().(*net.TCPAddr).Port}, mine).Until(t.Context(), untold); err != nil {
		t.Fatal(err)
	}
}

func TestPortLater(t *testing.T) {
	port := free(t)
	heard := make(chan error, 1)
	go func() { heard <- Port("127.0.0.1", []int{port}, mine).Until(t.Context(), untold) }()
	select {
	case err := <-heard:
		t.Fatalf("before anybody listened: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := <-heard; err != nil {
		t.Fatal(err)
	}
}

func TestPortNever(t *testing.T) {
	port := free(t)
	err := refusedBy(t, Port("127.0.0.1", []int{port, port}, mine))
	if !errors.Is(err, errOver) || !strings.Contains(err.Error(), strconv.Itoa(port)) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v, want the port, the refusal and the cause", err)
	}
}

// A port that accepts and is a stranger's is waited for until it is not.
func TestPortOfStranger(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port, asked := l.Addr().(*net.TCPAddr).Port, 0
	theirs := errors.New("it is theirs")
	if err := Port("127.0.0.1", []int{port}, func(n int) error {
		if asked++; n != port || asked < 3 {
			return theirs
		}
		return nil
	}).Until(t.Context(), untold); err != nil || asked != 3 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	stays := func(int) error { return theirs }
	for _, err := range []error{
		refusedBy(t, Port("127.0.0.1", []int{port}, stays)),
		refusedBy(t, Hands([]int{port}, stays)),
	} {
		if !errors.Is(err, errOver) || !strings.Contains(err.Error(), theirs.Error()) {
			t.Errorf("got %v", err)
		}
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
