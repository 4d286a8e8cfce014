package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/Microsoft/go-winio"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/allexgo/machine-agent/agent"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// A call over a named pipe: whoever may open it is an operator, unless it is one
// of the agent's processes.
func TestPipe(t *testing.T) {
	name := fmt.Sprintf(`%smachineagent-test-%d`, pipePrefix, os.Getpid())
	l, err := Listen(name)
	if err != nil {
		t.Fatal(err)
	}
	// Under Wine the first connection is swallowed; elsewhere this is one more.
	if c, err := winio.DialPipe(name, nil); err == nil {
		c.Close()
	}
	m := newMemory()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	s := New(Config{Socket: name, Agent: m, Logger: hclog.NewNullLogger(), AgentUID: -1})
	go func() { ended <- s.Serve(ctx, l) }()

	c, err := grpc.NewClient("passthrough:///"+name, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return winio.DialPipeContext(ctx, name) }))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	processes := pb.NewProcessServiceClient(c)
	if _, err := processes.StopProcess(ctx, &pb.StopProcessRequest{Instance: "mine"}); err != nil {
		t.Error(err)
	}
	m.own(os.Getpid(), agent.Owner{Instance: "mine"})
	if _, err := processes.StopProcess(ctx, &pb.StopProcessRequest{Instance: "mine"}); err == nil {
		t.Error("a child may stop processes")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPipeNames(t *testing.T) {
	_, err := Listen(`C:\socket`)
	if e := new(SocketError); !errors.As(err, &e) {
		t.Errorf("%v is a %T", err, err)
	}
}
