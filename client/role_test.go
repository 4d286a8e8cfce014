//go:build !windows

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
)

// Each makes the test binary play a role. The value is where.
const (
	squatterVariable = "CLIENT_TEST_SQUAT"
	strangerVariable = "CLIENT_TEST_CALL"
	passedVariable   = "CLIENT_TEST_PASSED"
)

// play plays the role that the environment asks for, if it asks for one.
func play() bool {
	switch {
	case os.Getenv(squatterVariable) != "":
		squat(os.Getenv(squatterVariable))
	case os.Getenv(strangerVariable) != "":
		fmt.Println(call(os.Getenv(strangerVariable)))
	case os.Getenv(passedVariable) != "":
		fmt.Println(takePassed())
	default:
		return false
	}
	return true
}

// squat is the test binary in the role of another user who was there before
// the agent. It listens until its standard input ends.
func squat(path string) {
	l, err := net.Listen("unix", path)
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Stdout.WriteString("listening\n")
	io.Copy(io.Discard, os.Stdin)
	l.Close()
}

// call is a caller of a child's socket. It tells how that went.
func call(path string) string {
	conn, err := net.Dial("unix", path)
	if errors.Is(err, fs.ErrPermission) {
		return "kept out"
	}
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	// gRPC servers speak first.
	if n, err := conn.Read(make([]byte, 1)); n == 0 {
		return fmt.Sprintf("hung up: %v", err)
	}
	return "served"
}

// takePassed is a child that takes its HTTP port, tells it, and greets the first
// caller.
func takePassed() error {
	return RunChild(context.Background(), ChildConfig{}, func(_ context.Context, c *Child) error {
		l, err := c.Listen(HTTP)
		if err != nil {
			return err
		}
		defer l.Close()
		other, err := c.Listen(WS)
		if err != nil {
			return err
		}
		defer other.Close()
		fmt.Println(l.Addr(), other.Addr().String() != l.Addr().String())
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "hello")
		return err
	})
}
