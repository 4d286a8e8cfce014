//go:build unix

package server

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/allexgo/machine-agent/agent"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func TestTailLogs(t *testing.T) {
	m := newMemory()
	m.own(os.Getpid(), agent.Owner{Instance: "mine"})
	c := pb.NewProcessServiceClient(dial(t, serve(t, m, os.Getuid()).socket))
	for _, tt := range []struct {
		asked *pb.TailLogsRequest
		want  agent.Tail
	}{
		{&pb.TailLogsRequest{}, agent.Tail{Instance: "mine"}},
		{&pb.TailLogsRequest{Instance: "mine", Begin: &pb.TailLogsRequest_Position{}}, agent.Tail{Instance: "mine", Position: new(int64(0))}},
		{&pb.TailLogsRequest{Begin: &pb.TailLogsRequest_Lines{Lines: 7}}, agent.Tail{Instance: "mine", Lines: new(7)}},
	} {
		stream, err := c.TailLogs(t.Context(), tt.asked)
		if err != nil {
			t.Fatal(err)
		}
		piece, err := stream.Recv()
		want := &pb.TailLogsResponse{Position: 4096, Missing: 96, Data: make([]byte, 32<<10)}
		if diff := cmp.Diff(want, piece, protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("%v: %v (-want +got)\n%s", tt.asked, err, diff)
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("%v: the end is %v", tt.asked, err)
		}
		if diff := cmp.Diff(tt.want, m.tails[len(m.tails)-1]); diff != "" {
			t.Errorf("the agent was asked (-want +got)\n%s", diff)
		}
	}
	for _, wrong := range []*pb.TailLogsRequest{
		{Begin: &pb.TailLogsRequest_Position{Position: -1}}, {Begin: &pb.TailLogsRequest_Lines{Lines: -1}},
	} {
		stream, err := c.TailLogs(t.Context(), wrong)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", wrong, err)
		}
	}
}

// A reader that reads nothing of a log without end holds up no other caller, and a
// server that leaves no longer than it waits for anybody.
func TestReaderWhoDoesNotRead(t *testing.T) {
	s := serve(t, newMemory(), os.Getuid())
	conn := dial(t, s.socket)
	c := pb.NewProcessServiceClient(conn)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := c.TailLogs(ctx, &pb.TailLogsRequest{Instance: "mine", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetProcess(t.Context(), &pb.GetProcessRequest{Instance: "mine"}); err != nil {
		t.Error(err)
	}
	s.grace = 50 * time.Millisecond
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the reader is told %v", err)
	}
}
