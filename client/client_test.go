//go:build !windows

package client

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

func TestMain(m *testing.M) {
	if play() {
		return
	}
	goleak.VerifyTestMain(m)
}

// fake answers every call that the tests make as its answer says.
type fake struct {
	machineagentv1.UnimplementedAgentServiceServer
	answer func(ctx context.Context) (*machineagentv1.GetStatusResponse, error)
	calls  int // of both; the tests call one after the other
}

func (f *fake) GetStatus(ctx context.Context, _ *machineagentv1.GetStatusRequest) (*machineagentv1.GetStatusResponse, error) {
	f.calls++
	return f.answer(ctx)
}

func (f *fake) Shutdown(ctx context.Context, _ *machineagentv1.ShutdownRequest) (*machineagentv1.ShutdownResponse, error) {
	f.calls++
	_, err := f.answer(ctx)
	return &machineagentv1.ShutdownResponse{}, err
}

func hello(context.Context) (*machineagentv1.GetStatusResponse, error) {
	return &machineagentv1.GetStatusResponse{Name: "alpha"}, nil
}

// serve lets an agent with that answer listen on path. stop may be called
// twice.
func serve(t *testing.T, path string, answer func(context.Context) (*machineagentv1.GetStatusResponse, error)) (f *fake, stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f = &fake{answer: answer}
	s := grpc.NewServer()
	machineagentv1.RegisterAgentServiceServer(s, f)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	stop = func() { s.Stop() }
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return f, stop
}

func dial(t *testing.T, target string, options ...Option) *Client {
	t.Helper()
	c, err := Dial(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func getStatus(ctx context.Context, c *Client) (*machineagentv1.GetStatusResponse, error) {
	return c.Agent.GetStatus(ctx, &machineagentv1.GetStatusRequest{})
}

func TestDialFindsTheAddress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	serve(t, path, hello)
	for _, target := range []string{path, "unix:" + path, "unix://" + path} {
		answer, err := getStatus(t.Context(), dial(t, target))
		if err != nil || answer.Name != "alpha" {
			t.Errorf("at %s: %v, %v", target, answer, err)
		}
	}
	t.Setenv(AddressVariable, "unix:"+path)
	if _, err := getStatus(t.Context(), dial(t, "")); err != nil {
		t.Errorf("by %s: %v", AddressVariable, err)
	}
	t.Setenv(AddressVariable, "")
	if c := dial(t, ""); "unix:"+c.Address() != DefaultTarget {
		t.Errorf("without %s: %s, want %s", AddressVariable, c.Address(), DefaultTarget)
	}
}

func TestDialRefusesWhatIsNoSocket(t *testing.T) {
	for _, target := range []string{"localhost:4711", "dns:///agent", "unix:", "unix://", "agent.sock", `\\.\pipe\agent`} {
		c, err := Dial(target)
		if !errors.Is(err, ErrInvalid) || c != nil {
			t.Errorf("Dial(%q) = %v, %v, want ErrInvalid", target, c, err)
			continue
		}
		if !strings.Contains(err.Error(), target) || !strings.Contains(err.Error(), DefaultTarget) {
			t.Errorf("Dial(%q): %q names neither the address nor a right one", target, err)
		}
	}
}

func TestDeadline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	left := make(chan time.Duration, 1)
	serve(t, path, func(ctx context.Context) (*machineagentv1.GetStatusResponse, error) {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		return hello(ctx)
	})
	c := dial(t, path)
	minute, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, test := range []struct {
		ctx  context.Context
		want time.Duration
	}{{t.Context(), DefaultDeadline}, {minute, time.Minute}} {
		if _, err := getStatus(test.ctx, c); err != nil {
			t.Fatal(err)
		}
		if got := <-left; got > test.want || got < test.want-5*time.Second {
			t.Errorf("the agent was given %v, want about %v", got, test.want)
		}
	}
}

// An agent that hangs costs its callers their time and nothing else.
func TestHangingAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	entered := make(chan struct{}, 2)
	serve(t, path, func(ctx context.Context) (*machineagentv1.GetStatusResponse, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	c := dial(t, path)

	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := getStatus(short, c)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), path+" did not answer in time") {
		t.Errorf("out of time: %v", err)
	}
	<-entered

	given, giveUp := context.WithCancel(t.Context())
	go func() {
		<-entered
		giveUp()
	}()
	if _, err := getStatus(given, c); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}

// Who takes connections and says nothing is not waited for without end, and is told
// from one who hangs up.
func TestMuteAgent(t *testing.T) {
	for _, hangsUp := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "agent.sock")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		patience := 50 * time.Millisecond
		if hangsUp {
			patience = time.Minute // which it does not take
			go func() {
				for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
					conn.Close()
				}
			}()
		}
		c, err := Dial(path, Patience(patience))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		stream, err := c.Processes.TailLogs(t.Context(), &machineagentv1.TailLogsRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if !errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) == hangsUp || strings.Contains(err.Error(), "did not answer in time") == hangsUp {
			t.Errorf("hangs up %v: %v", hangsUp, err)
		}
	}
}

func TestOnlyReadsAreRetried(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	down := 2
	f, _ := serve(t, path, func(ctx context.Context) (*machineagentv1.GetStatusResponse, error) {
		if down > 0 {
			down--
			return nil, status.Error(codes.Unavailable, "not yet")
		}
		return hello(ctx)
	})
	c := dial(t, path)
	if _, err := getStatus(t.Context(), c); err != nil || f.calls != 3 {
		t.Errorf("a read: %v after %d calls, want success after 3", err, f.calls)
	}
	down, f.calls = 1, 0
	_, err := c.Agent.Shutdown(t.Context(), &machineagentv1.ShutdownRequest{})
	if !errors.Is(err, ErrUnavailable) || f.calls != 1 {
		t.Errorf("a change: %v after %d calls, want ErrUnavailable after 1", err, f.calls)
	}
	down, f.calls = 100, 0
	_, err = getStatus(t.Context(), c)
	if !errors.Is(err, ErrUnavailable) || f.calls != 4 || strings.Contains(err.Error(), "retries") {
		t.Errorf("a read in vain: %v after %d calls, want ErrUnavailable after 4", err, f.calls)
	}
}

// The names in readRetries are those of calls that exist, and all that only
// read are there.
func TestRetriesNameTheReads(t *testing.T) {
	var config struct {
		MethodConfig []struct {
			Name []struct{ Service, Method string }
		}
	}
	if err := json.Unmarshal([]byte(readRetries), &config); err != nil {
		t.Fatal(err)
	}
	retried := map[string]bool{}
	for _, name := range config.MethodConfig[0].Name {
		retried[name.Service+"."+name.Method] = true
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("machineagent.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				name := string(m.FullName())
				reads := strings.HasPrefix(string(m.Name()), "Get") || strings.HasPrefix(string(m.Name()), "List")
				if retried[name] != reads {
					t.Errorf("%s: retried %v, want %v", name, retried[name], reads)
				}
				delete(retried, name)
			}
		}
		return true
	})
	if len(retried) > 0 {
		t.Errorf("no such calls: %v", retried)
	}
}

// One client outlives the agents that it talks to.
func TestAgentRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	c := dial(t, path)
	if _, err := getStatus(t.Context(), c); !errors.Is(err, ErrNoAgent) {
		t.Fatalf("before the agent: %v", err)
	}
	_, stop := serve(t, path, hello)
	await(t, c)
	stop()
	if _, err := getStatus(t.Context(), c); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("without an agent: %v", err)
	}
	serve(t, path, hello)
	await(t, c)
}

// await calls until the agent answers. The pause between two attempts to
// connect grows to a second, which is longer than the retries of one call.
func await(t *testing.T, c *Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		_, err := getStatus(ctx, c)
		if err == nil {
			return
		}
		if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestConnectionBreaksInTheCall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	entered := make(chan struct{})
	_, stop := serve(t, path, func(ctx context.Context) (*machineagentv1.GetStatusResponse, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	c := dial(t, path)
	go func() {
		<-entered
		stop()
	}()
	_, err := c.Agent.Shutdown(t.Context(), &machineagentv1.ShutdownRequest{})
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, want ErrUnavailable that names the socket", err)
	}
}

func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	serve(t, path, hello)
	c := dial(t, path)
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := getStatus(t.Context(), c); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a call after Close: %v", err)
	}
}
