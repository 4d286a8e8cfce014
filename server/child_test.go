//go:build linux

package server

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// asked is a ChildService that remembers what it was asked.
type asked struct {
	pb.UnsafeChildServiceServer
	requests chan *pb.StopRequest
}

func (a *asked) Stop(_ context.Context, r *pb.StopRequest) (*pb.StopResponse, error) {
	a.requests <- r
	return &pb.StopResponse{}, nil
}

// listenAsChild is a socket as a child has one.
func listenAsChild(t *testing.T) (net.Listener, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "child")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, socket
}

func serveChild(t *testing.T, register func(*grpc.Server)) (socket string) {
	t.Helper()
	l, socket := listenAsChild(t)
	s := grpc.NewServer()
	register(s)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return socket
}

func isSelf(pid int) bool { return pid == os.Getpid() }

func TestStopOfAChild(t *testing.T) {
	child := &asked{requests: make(chan *pb.StopRequest, 1)}
	socket := serveChild(t, func(s *grpc.Server) { pb.RegisterChildServiceServer(s, child) })
	if err := (Children{}).Stop(t.Context(), socket, isSelf, "drained", 3*time.Second); err != nil {
		t.Fatal(err)
	}
	if r := <-child.requests; r.GetReason() != "drained" || r.GetTimeout().AsDuration() != 3*time.Second {
		t.Errorf("it was asked %v", r)
	}

	// Whoever is not of the instance is not asked.
	err := (Children{}).Stop(t.Context(), socket, func(int) bool { return false }, "", time.Second)
	if err == nil || !strings.Contains(err.Error(), "no process of the instance") {
		t.Errorf("a stranger: %v", err)
	}
	if len(child.requests) != 0 {
		t.Error("a stranger was asked")
	}
}

// A child that serves something else, or nothing, is none that has agreed.
func TestStopOfAChildThatDoesNotServe(t *testing.T) {
	nothing := filepath.Join(t.TempDir(), "none")
	if err := (Children{}).Stop(t.Context(), nothing, isSelf, "", time.Second); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a socket: %v", err)
	}
	other := serveChild(t, func(*grpc.Server) {})
	if err := (Children{}).Stop(t.Context(), other, isSelf, "", time.Second); status.Code(err) != codes.Unimplemented {
		t.Errorf("with other services: %v", err)
	}

	// One that speaks no gRPC, as the original's, does not hold up the caller.
	silent, socket := listenAsChild(t)
	go func() {
		if c, err := silent.Accept(); err == nil {
			_, _ = io.Copy(io.Discard, c) // until the caller hangs up
			c.Close()
		}
	}()
	within, stop := context.WithTimeout(t.Context(), 10*speaksWithin)
	defer stop()
	if err := (Children{}).Stop(within, socket, isSelf, "", time.Second); err == nil || within.Err() != nil {
		t.Errorf("without gRPC: %v, %v", err, within.Err())
	}
}

// halfway is a ChildService that does not get to answer.
type halfway struct {
	pb.UnsafeChildServiceServer
	asked func(context.Context)
}

func (h halfway) Stop(ctx context.Context, _ *pb.StopRequest) (*pb.StopResponse, error) {
	h.asked(ctx)
	return nil, status.FromContextError(ctx.Err()).Err()
}

// A child that has been asked has not refused if it does not answer.
func TestStopOfAChildThatDoesNotAnswer(t *testing.T) {
	var server *grpc.Server
	ends := serveChild(t, func(s *grpc.Server) {
		server = s
		pb.RegisterChildServiceServer(s, halfway{asked: func(ctx context.Context) {
			go server.Stop()
			<-ctx.Done()
		}})
	})
	if err := (Children{}).Stop(t.Context(), ends, isSelf, "", time.Minute); err != nil {
		t.Errorf("it closes its connections: %v", err)
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	busy := serveChild(t, func(s *grpc.Server) {
		pb.RegisterChildServiceServer(s, halfway{asked: func(ctx context.Context) {
			select {
			case <-time.After(speaksWithin + speaksWithin/2):
				stop()
			case <-ctx.Done():
			}
			<-ctx.Done()
		}})
	})
	if err := (Children{}).Stop(ctx, busy, isSelf, "", time.Minute); status.Code(err) != codes.Canceled || ctx.Err() == nil {
		t.Errorf("it is busy: %v", err)
	}
}
