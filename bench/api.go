//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/allexgo/machine-agent/e2e/lab"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

const calls = 2000 // of each kind, one after the other on an open connection

// benchAPI measures calls of an agent with n children, and beside them the least
// that a call can cost: a bare gRPC server in a process of its own answers as much
// as nothing.
func benchAPI(ctx context.Context, bin string, n int) (err error) {
	dir, err := os.MkdirTemp("", "machine-agent-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &run{bin: bin, dir: dir, n: n}
	if b.child, err = compile(ctx, dir); err != nil {
		return err
	}
	return b.during(ctx, []string{"http"}, func(*lab.Lab) error { return b.calls(ctx) })
}

// calls measures them in turns, so that the machine is the same to both.
func (b *run) calls(ctx context.Context) (err error) {
	echo, err := startEcho(ctx, filepath.Join(b.dir, "echo"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, echo.close()) }()

	var register, bare []time.Duration
	outside := &machineagentv1.RegisterProcessRequest{Instance: "Echo", Pid: int32(echo.process.Process.Pid)}
	for range calls {
		began := time.Now()
		if _, err := b.agent.Client.Processes.RegisterProcess(ctx, outside); err != nil {
			return err
		}
		between := time.Now()
		if _, err := echo.client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
			return err
		}
		register, bare = append(register, between.Sub(began)), append(bare, time.Since(between))
	}
	var list []time.Duration
	for range calls / 20 {
		began := time.Now()
		answer, err := b.agent.Client.Processes.ListProcesses(ctx, &machineagentv1.ListProcessesRequest{PageSize: int32(b.n + 1)})
		if err != nil {
			return err
		}
		if got := len(answer.GetProcesses()); got != min(b.n+1, 1000) {
			return fmt.Errorf("ListProcesses tells of %d processes, want %d", got, min(b.n+1, 1000))
		}
		list = append(list, time.Since(began))
	}
	print([]row{
		{fmt.Sprintf("RegisterProcess again, with %d children", b.n), quantiles(register), quantiles(bare) + " bare call", "1.3 times", "-", quantile(register, 50) / quantile(bare, 50) / 1.3},
		{fmt.Sprintf("ListProcesses of %d children on one page", b.n), quantiles(list), "-", "-", "-", 0},
	})
	return nil
}

// echo is a bare gRPC server in a process of its own, and a connection to it.
type echo struct {
	process *exec.Cmd
	conn    *grpc.ClientConn
	client  grpc_health_v1.HealthClient
}

func startEcho(ctx context.Context, socket string) (*echo, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	process := exec.CommandContext(ctx, self, "echo", socket)
	process.Stderr = os.Stderr
	if err := process.Start(); err != nil {
		return nil, err
	}
	e := &echo{process: process}
	if e.conn, err = grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials())); err == nil {
		e.client = grpc_health_v1.NewHealthClient(e.conn)
		_, err = e.client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *echo) close() error {
	err := e.process.Process.Kill()
	_ = e.process.Wait() // it was killed
	if e.conn != nil {
		err = errors.Join(err, e.conn.Close())
	}
	return err
}

// serveEcho is the other process.
func serveEcho(socket string) error {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	return server.Serve(listener)
}
