package probe

import (
	"context"
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

func TestPortQuick(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := Port(t.Context(), "127.0.0.1", []int{free(t), l.Addr().(*net.TCPAddr).Port}); err != nil {
		t.Fatal(err)
	}
}

func TestPortLater(t *testing.T) {
	port := free(t)
	heard := make(chan error, 1)
	go func() { heard <- Port(t.Context(), "127.0.0.1", []int{port}) }()
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
	cause := errors.New("its start timeout is over")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, cause)
	defer cancel()
	port := free(t)
	err := Port(ctx, "127.0.0.1", []int{port, port})
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), strconv.Itoa(port)) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v, want the port, the refusal and the cause", err)
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
