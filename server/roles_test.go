//go:build unix

package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// roleVariable has the test binary play a role instead of running tests, with
// socketVariable for its socket.
const (
	roleVariable   = "MACHINEAGENT_TEST_ROLE"
	socketVariable = "MACHINEAGENT_TEST_SOCKET"
)

// Users for tests that run as root; it does not matter whether they exist.
const agentsUID, otherUID = 51234, 51235

// roles are what the test binary can be.
var roles = map[string]func(socket string) error{
	"caller": playCaller,
	"forker": playForker,
	"holder": playHolder,

	"listener": playListener,
}

func play(role string) int {
	if err := roles[role](os.Getenv(socketVariable)); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		return 1
	}
	return 0
}

// self is the test binary. Other users can not reach it by its path, but where
// there is /proc every process can execute what it is itself.
func self() string {
	const path = "/proc/self/exe"
	if _, err := os.Stat(path); err == nil {
		return path
	}
	return os.Args[0]
}

// roleCommand is the test binary in a role, as the user uid.
func roleCommand(t *testing.T, role, socket string, uid int) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), self())
	c.Env = append(os.Environ(), roleVariable+"="+role, socketVariable+"="+socket,
		"GORACE=atexit_sleep_ms=0") // else each waits a second at its end
	c.Stderr = os.Stderr
	if uid != os.Getuid() {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	return c
}

// outcome is what an attempt came to, told by one process to another.
type outcome struct {
	Code     codes.Code
	Text     string
	Reason   string
	Metadata map[string]string
}

// playCaller waits for a line, makes every attempt and writes the outcomes.
func playCaller(socket string) error {
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	c, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	all := map[string]outcome{}
	for name, attempt := range attempts {
		all[name] = outcomeOf(attempt(ctx, c))
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

func outcomeOf(err error) outcome {
	st := status.Convert(err)
	o := outcome{Code: st.Code(), Text: st.Message()}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			o.Reason, o.Metadata = info.GetReason(), info.GetMetadata()
		}
	}
	return o
}

// playForker connects, calls, leaves the connection to a process that it starts,
// and ends.
func playForker(socket string) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	file, err := c.(*net.UnixConn).File()
	if err != nil {
		return err
	}
	holder := exec.Command(self())
	holder.Env = append(os.Environ(), roleVariable+"=holder")
	holder.Stdin, holder.Stdout, holder.Stderr = os.Stdin, os.Stdout, os.Stderr
	holder.ExtraFiles = []*os.File{file}
	return holder.Start()
}

// playHolder waits for its standard input's end and then calls on the connection
// that it was left.
func playHolder(string) error {
	io.Copy(io.Discard, os.Stdin)
	conn, err := net.FileConn(os.NewFile(3, "connection"))
	if err != nil {
		return err
	}
	c, err := grpc.NewClient("passthrough:held", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return conn, nil }))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = pb.NewAgentServiceClient(c).GetStatus(context.Background(), &pb.GetStatusRequest{})
	return json.NewEncoder(os.Stdout).Encode(outcomeOf(err))
}

// playListener says whether it could take the socket, and keeps it until its
// standard input ends.
func playListener(socket string) error {
	l, err := Listen(socket)
	if err != nil {
		fmt.Print(err)
		return nil
	}
	fmt.Print("taken")
	io.Copy(io.Discard, os.Stdin)
	return l.Close()
}
