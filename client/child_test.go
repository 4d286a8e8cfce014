//go:build !windows

package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// agentFake takes what children tell, and answers as it is told to.
type agentFake struct {
	machineagentv1.UnimplementedProcessServiceServer
	registered chan *machineagentv1.RegisterProcessRequest
	down       chan *machineagentv1.ReportDownRequest
	refuse     error
	busy       int // so many registrations get UNAVAILABLE first
}

func (f *agentFake) RegisterProcess(_ context.Context, r *machineagentv1.RegisterProcessRequest) (*machineagentv1.RegisterProcessResponse, error) {
	if f.busy > 0 {
		f.busy--
		return nil, status.Error(codes.Unavailable, "not yet")
	}
	f.registered <- r
	return &machineagentv1.RegisterProcessResponse{Process: &machineagentv1.Process{Pid: int32(os.Getpid())}}, f.refuse
}

func (f *agentFake) ReportDown(_ context.Context, r *machineagentv1.ReportDownRequest) (*machineagentv1.ReportDownResponse, error) {
	f.down <- r
	return &machineagentv1.ReportDownResponse{}, nil
}

// serveAgent lets an agent listen at path until stop or the end of the test.
func serveAgent(t *testing.T, path string, busy int) (f *agentFake, stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f = &agentFake{
		registered: make(chan *machineagentv1.RegisterProcessRequest, 10),
		down:       make(chan *machineagentv1.ReportDownRequest, 10),
		busy:       busy,
	}
	s := grpc.NewServer()
	machineagentv1.RegisterProcessServiceServer(s, f)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	stop = sync.OnceFunc(func() {
		s.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return f, stop
}

// ownSocket is where a child in this process serves.
func ownSocket() string { return fmt.Sprintf("/tmp/allexprocess.%d", os.Getpid()) }

// asChild gives this process the environment of a child, and tells where its
// agent has to listen.
func asChild(t *testing.T, instance string) (agent string) {
	t.Helper()
	agent = filepath.Join(t.TempDir(), "agent.sock")
	for name, value := range map[string]string{
		AddressVariable: "unix:" + agent, "MACHINEAGENT_INSTANCE": instance,
		"ALLEX_SPAWN": "", "TCP_PORT": "", "HTTP_PORT": "", "PORT": "", "WS_PORT": "",
		"LISTEN_PID": "", "LISTEN_FDS": "", "LISTEN_FDNAMES": "", "NOTIFY_SOCKET": "",
	} {
		t.Setenv(name, value)
	}
	return agent
}

// quiet is a logger, and what it was told.
func quiet() (*slog.Logger, *bytes.Buffer) {
	var said bytes.Buffer
	return slog.New(slog.NewTextHandler(&said, nil)), &said
}

// runChild runs a child to its end and fails unless it ends well. It tells what
// the child logged.
func runChild(t *testing.T, serve func(context.Context, *Child) error) string {
	t.Helper()
	log, said := quiet()
	if err := RunChild(t.Context(), ChildConfig{Logger: log}, serve); err != nil {
		t.Errorf("the child ended with: %v", err)
	}
	if _, err := os.Lstat(ownSocket()); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", ownSocket(), err)
	}
	return said.String()
}

// own connects to the socket of the child in this process.
func own(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+ownSocket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func ownHealth(t *testing.T) grpc_health_v1.HealthCheckResponse_ServingStatus {
	t.Helper()
	answer, err := grpc_health_v1.NewHealthClient(own(t)).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetStatus()
}

// A child's life: it opens its port, says that it is up, and ends when the agent
// asks it to, with the time that it is given.
func TestChild(t *testing.T) {
	agent, _ := serveAgent(t, asChild(t, "Echo"), 0)
	said := runChild(t, func(ctx context.Context, c *Child) error {
		info, err := os.Lstat(ownSocket())
		if err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("its socket: %v, %v", info, err)
		}
		if h := ownHealth(t); h != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
			t.Errorf("before it is up: %v", h)
		}
		l, err := c.Listen(HTTP)
		if err != nil {
			return err
		}
		defer l.Close()
		if err := c.Up(ctx, "all is well"); err != nil {
			return err
		}
		r := <-agent.registered
		port := l.Addr().(*net.TCPAddr).Port
		if r.Instance != "Echo" || r.StatusText != "all is well" || int(r.Ports.Http) != port || r.Ports.Tcp != 0 || r.Pid != 0 {
			t.Errorf("registered %v, with port %d", r, port)
		}
		if h := ownHealth(t); h != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("when it is up: %v", h)
		}

		// Twice, as an agent does that did not hear the answer. The first counts.
		for _, reason := range []string{"held by an operator", "again"} {
			_, err := machineagentv1.NewChildServiceClient(own(t)).Stop(ctx, &machineagentv1.StopRequest{
				Reason: reason, Timeout: durationpb.New(time.Minute),
			})
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
		<-ctx.Done()
		var stopped *Stopped
		if err := context.Cause(ctx); !errors.As(err, &stopped) || stopped.Reason != "held by an operator" {
			t.Errorf("it ends because %v", err)
		}
		finish, cancel := Grace(ctx)
		defer cancel()
		if deadline, ok := finish.Deadline(); !ok || finish.Err() != nil || !deadline.Before(stopped.Deadline) || time.Until(deadline) < 30*time.Second {
			t.Errorf("it has until %v, %v, of %v", deadline, ok, stopped.Deadline)
		}
		return ctx.Err()
	})
	if said != "" {
		t.Errorf("it logged %s", said)
	}
}

func TestChildEndsBySignal(t *testing.T) {
	serveAgent(t, asChild(t, "Echo"), 0)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		runChild(t, func(ctx context.Context, _ *Child) error {
			if err := syscall.Kill(os.Getpid(), sig); err != nil {
				return err
			}
			<-ctx.Done()
			if cause := context.Cause(ctx); !strings.Contains(cause.Error(), sig.String()) {
				t.Errorf("it ends because %v", cause)
			}
			finish, cancel := Grace(ctx)
			defer cancel()
			if deadline, ok := finish.Deadline(); !ok || time.Until(deadline) > usualGrace {
				t.Errorf("it has until %v, %v", deadline, ok)
			}
			return nil
		})
	}
}

// What serve returns is what RunChild returns, unless it only says that the
// context has ended.
func TestChildFails(t *testing.T) {
	asChild(t, "")
	broken := errors.New("broken")
	log, _ := quiet()
	for _, end := range []bool{false, true} {
		err := RunChild(t.Context(), ChildConfig{Logger: log}, func(ctx context.Context, c *Child) error {
			if end {
				return errors.Join(broken, c.Down(ctx, "enough"))
			}
			return broken
		})
		if !errors.Is(err, broken) {
			t.Errorf("after the end %v: %v", end, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := RunChild(ctx, ChildConfig{Logger: log}, func(ctx context.Context, _ *Child) error {
		cancel()
		<-ctx.Done()
		return context.Cause(ctx)
	}); err != nil {
		t.Errorf("its caller ended it: %v", err)
	}
	t.Setenv("HTTP_PORT", "many")
	if err := RunChild(t.Context(), ChildConfig{Logger: log}, nil); err == nil || !strings.Contains(err.Error(), "HTTP_PORT") {
		t.Errorf("an odd port: %v", err)
	}
}

// A child comes up while there is no agent, and stays registered with whichever
// agent there is, until it is down.
func TestChildOutlivesAgents(t *testing.T) {
	path := asChild(t, "Echo")
	said := runChild(t, func(ctx context.Context, c *Child) error {
		up := make(chan error, 1)
		go func() { up <- c.Up(ctx, "first") }()
		agent, stop := serveAgent(t, path, 2)
		if r := <-agent.registered; r.StatusText != "first" {
			t.Errorf("registered %v", r)
		}
		if err := <-up; err != nil {
			return err
		}
		if err := c.Up(ctx, "second"); err != nil {
			return err
		}
		for range 2 {
			stop()
			agent, stop = serveAgent(t, path, 0)
			if r := <-agent.registered; r.StatusText != "second" {
				t.Errorf("the next agent was told %v", r)
			}
		}

		if err := c.Down(ctx, "tired"); err != nil {
			return err
		}
		if r := <-agent.down; r.Instance != "Echo" || r.Reason != "tired" {
			t.Errorf("reported %v", r)
		}
		stop()
		agent, _ = serveAgent(t, path, 0)
		// It connects again, but there is nothing to say. A call of ours behind
		// its own shows that it made none.
		if err := c.Down(ctx, "still"); err != nil {
			return err
		}
		<-agent.down
		if len(agent.registered) > 0 {
			t.Errorf("registered although it is down: %v", <-agent.registered)
		}
		return nil
	})
	if !strings.Contains(said, "waiting for the agent") {
		t.Errorf("it waited in silence: %s", said)
	}
}

// What can not be mended by waiting is told at once; and a stop ends the waiting.
func TestUpFails(t *testing.T) {
	path := asChild(t, "Echo")
	runChild(t, func(ctx context.Context, c *Child) error {
		go c.stop(&Stopped{Reason: "enough"})
		err := c.Up(ctx, "")
		if !errors.Is(err, ErrNoAgent) && !errors.Is(err, context.Canceled) {
			t.Errorf("stopped while it waits: %v", err)
		}
		return err
	})
	agent, _ := serveAgent(t, path, 0)
	agent.refuse = status.Error(codes.AlreadyExists, "another one has that name")
	runChild(t, func(ctx context.Context, c *Child) error {
		if err := c.Up(ctx, ""); !errors.Is(err, ErrExists) {
			t.Errorf("refused: %v", err)
		}
		return nil
	})
}

// In a developer's shell a child runs as well, and nobody is told.
func TestChildWithoutAgent(t *testing.T) {
	asChild(t, "")
	said := runChild(t, func(ctx context.Context, c *Child) error {
		if err := c.Up(ctx, ""); err != nil {
			return err
		}
		if err := c.Down(ctx, "enough"); err != nil {
			return err
		}
		<-ctx.Done()
		if cause := context.Cause(ctx); !strings.Contains(cause.Error(), "enough") {
			t.Errorf("it ends because %v", cause)
		}
		return nil
	})
	if said != "" {
		t.Errorf("it logged %s", said)
	}
}

// What a process of our pid left behind is replaced; what somebody else put
// there is left alone, and the child runs without.
func TestChildSocketIsTaken(t *testing.T) {
	asChild(t, "")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: ownSocket(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	log, said := quiet()
	run := func(want bool) {
		t.Helper()
		said.Reset()
		if err := RunChild(t.Context(), ChildConfig{Logger: log}, func(context.Context, *Child) error {
			if want {
				ownHealth(t)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if silent := said.Len() == 0; silent != want {
			t.Errorf("it logged %q", said)
		}
	}
	run(false) // it is served
	l.Close()
	run(true) // it was left behind
	if err := os.WriteFile(ownSocket(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(ownSocket())
	run(false) // it is no socket
	if _, err := os.Lstat(ownSocket()); err != nil {
		t.Errorf("the file of somebody else: %v", err)
	}
}

func TestReadinessIsNotified(t *testing.T) {
	asChild(t, "")
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	runChild(t, func(ctx context.Context, c *Child) error { return c.Up(ctx, "") })
	text := make([]byte, 100)
	n, err := l.Read(text)
	if err != nil || string(text[:n]) != "READY=1" {
		t.Errorf("notified %q, %v", text[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", path+"-not")
	if said := runChild(t, func(ctx context.Context, c *Child) error { return c.Up(ctx, "") }); !strings.Contains(said, "notified") {
		t.Errorf("nobody to notify, and it logged %q", said)
	}
}
