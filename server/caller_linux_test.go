package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/allexgo/machine-agent/agent"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// A connection is worth nothing without the process that opened it.
func TestDeadCallersConnectionIsRefused(t *testing.T) {
	s := serve(t, newMemory(), os.Getuid())
	forker := roleCommand(t, "forker", s.socket, os.Getuid())
	stdin, holderWaits, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, written, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	forker.Stdin, forker.Stdout = stdin, written
	if err := forker.Run(); err != nil { // so it is dead and reaped
		t.Fatal(err)
	}
	stdin.Close()
	written.Close()
	holderWaits.Close() // go

	var got outcome
	if err := json.NewDecoder(stdout).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Code != codes.PermissionDenied || got.Reason != "CALLER_NOT_ALLOWED" ||
		!strings.Contains(got.Text, fmt.Sprintf("pid %d", forker.Process.Pid)) || !strings.Contains(got.Text, "is gone") {
		t.Errorf("the holder got %+v", got)
	}
	io.Copy(io.Discard, stdout) // the holder's end
}

// The agent is asked whose process a caller is once in a connection, and again when
// some instance has got or lost its process: if the caller was nobody's, or its
// instance has another process now.
func TestOwnerIsRemembered(t *testing.T) {
	m := newMemory()
	s := serve(t, m, os.Getuid())
	c := pb.NewProcessServiceClient(dial(t, s.socket))
	call := func(want codes.Code, asked int) {
		t.Helper()
		// Allowed to operators only: it tells what we are taken for.
		_, err := c.StopProcess(t.Context(), &pb.StopProcessRequest{Instance: "mine"})
		if status.Code(err) != want {
			t.Errorf("call: %v, want %v", err, want)
		}
		if got := m.timesAsked(); got != asked {
			t.Errorf("the agent was asked %d times, want %d", got, asked)
		}
	}
	call(codes.OK, 1)
	call(codes.OK, 1) // nobody's
	m.own(os.Getpid(), agent.Owner{Instance: "mine"})
	call(codes.PermissionDenied, 2) // a child's, at once
	call(codes.PermissionDenied, 2)
	m.replace("other", 300)
	call(codes.PermissionDenied, 2) // its own has the same process
	m.replace("mine", 200)
	call(codes.PermissionDenied, 3) // asked again, and the agent says the same
	call(codes.PermissionDenied, 3)
	m.replace("mine", 201)
	m.own(os.Getpid(), agent.Owner{}) // no longer part of it
	call(codes.OK, 4)
	m.own(os.Getpid(), agent.Owner{Instance: "gone"})
	call(codes.PermissionDenied, 5)
	call(codes.PermissionDenied, 6) // an instance without a process is not remembered

	other := pb.NewProcessServiceClient(dial(t, s.socket))
	m.own(os.Getpid(), agent.Owner{Instance: "mine"})
	if _, err := other.StopProcess(t.Context(), &pb.StopProcessRequest{Instance: "mine"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another connection: %v", err)
	}
}

// One process can not take all descriptors of the agent.
func TestConnectionsOfOneProcessAreLimited(t *testing.T) {
	s := serve(t, newMemory(), os.Getuid())
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	connect := func() error {
		c, err := net.Dial("unix", s.socket)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		_, err = c.Read(make([]byte, 1)) // the server's settings, if it lets us in
		return err
	}
	for range connectionLimit {
		if err := connect(); err != nil {
			t.Fatal(err)
		}
	}
	if err := connect(); err == nil {
		t.Error("one more was let in")
	}
	for _, c := range open {
		c.Close()
	}
	for { // until the server has noticed
		if err := connect(); err == nil {
			break
		}
	}
}

// Many processes together can not take them either.
func TestConnectionsAreLimited(t *testing.T) {
	s := serve(t, newMemory(), os.Getuid())
	const most = 3
	s.door.mu.Lock()
	s.door.most = most
	s.door.mu.Unlock()
	let := func() net.Conn {
		c, err := net.Dial("unix", s.socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			c.Close()
			return nil
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var first net.Conn
	for range most {
		if first = let(); first == nil {
			t.Fatal("it was not let in")
		}
	}
	if let() != nil {
		t.Error("one more was let in")
	}
	first.Close()
	for let() == nil { // until the server has noticed
	}
}

// No descriptor is left by connections that ended in whatever way.
func TestNoDescriptorIsLeft(t *testing.T) {
	s := serve(t, newMemory(), os.Getuid())
	count := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := count()
	for _, greeting := range []string{"", "GET / HTTP/1.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", strings.Repeat("\xff", 100)} {
		c, err := net.Dial("unix", s.socket)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, greeting)
		c.(*net.UnixConn).CloseWrite()
		io.Copy(io.Discard, c) // until the server hangs up
		c.Close()
	}
	c, err := grpc.NewClient("unix:"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pb.NewAgentServiceClient(c).GetStatus(t.Context(), &pb.GetStatusRequest{}); err != nil {
		t.Fatal(err)
	}
	c.Close()
	s.stop()
	// The listener and its lock have gone as well.
	if after := count(); after != before-2 {
		t.Errorf("%d descriptors were open, then %d", before, after)
	}
}

func TestSocketsMode(t *testing.T) {
	s := serve(t, newMemory(), os.Getuid())
	file, err := os.Lstat(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	if file.Mode() != os.ModeSocket|0o666 {
		t.Errorf("the socket has mode %v", file.Mode())
	}
}

// A pin that has been released never looks at a descriptor that is another's now.
func TestReleasedPin(t *testing.T) {
	var none *pin
	if none.gone() {
		t.Error("without a pin nobody is known to be gone")
	}
	none.release()
	p := &pin{fd: -1}
	p.release()
	if !p.gone() {
		t.Error("a released pin says that its process lives")
	}
}
