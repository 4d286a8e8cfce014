//go:build unix

package server

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"

	"github.com/allexgo/machine-agent/agent"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// registration is what a child says each time.
var registration = &pb.RegisterProcessRequest{Ports: &pb.Ports{Http: 16000}, StatusText: "serving 12 callers"}

// BenchmarkRegister is a child that registers again and again on one connection;
// compare it with BenchmarkEcho of the same run (design section 10: 1.3 times).
func BenchmarkRegister(b *testing.B) {
	m := newMemory()
	m.own(os.Getpid(), agent.Owner{Instance: "mine"})
	c := pb.NewProcessServiceClient(dial(b, serve(b, m, os.Getuid()).socket))
	repeat(b, func() error { _, err := c.RegisterProcess(b.Context(), registration); return err })
	if m.timesAsked() > 1 {
		b.Errorf("the agent was asked %d times whose process that is", m.timesAsked())
	}
}

// BenchmarkEcho is the floor: a gRPC server as it comes, which gives back the
// message that it gets.
func BenchmarkEcho(b *testing.B) {
	l, err := net.Listen("unix", filepath.Join(socketDirectory(b), "socket"))
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: echo}}}, nil)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	b.Cleanup(func() {
		s.Stop()
		<-ended
	})
	c := dial(b, l.Addr().String())
	repeat(b, func() error { return c.Invoke(b.Context(), "/Echo/Echo", registration, new(pb.RegisterProcessRequest)) })
}

func echo(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	r := new(pb.RegisterProcessRequest)
	return r, decode(r)
}

func repeat(b *testing.B, call func() error) {
	b.Helper()
	if err := call(); err != nil { // connects
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := call(); err != nil {
			b.Fatal(err)
		}
	}
}
