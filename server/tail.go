package server

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"

	"github.com/allexgo/machine-agent/agent"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func (s *processService) TailLogs(r *pb.TailLogsRequest, stream grpc.ServerStreamingServer[pb.TailLogsResponse]) error {
	g := grantOf(stream.Context())
	t := agent.Tail{Instance: r.GetInstance(), Follow: r.GetFollow()}
	if t.Instance == "" {
		t.Instance = g.owner.Instance
	}
	var v violations
	v.name("instance", t.Instance)
	switch b := r.GetBegin().(type) {
	case *pb.TailLogsRequest_Position:
		if t.Position = &b.Position; b.Position < 0 {
			v.add("position", "is %d; positions begin at 0", b.Position)
		}
	case *pb.TailLogsRequest_Lines:
		lines := int(b.Lines)
		if t.Lines = &lines; lines < 0 {
			v.add("lines", "is %d; it must be 0 or more", lines)
		}
	}
	if err := v.err(); err != nil {
		return err
	}
	if g.reach != full {
		if err := g.own("read the log of", t.Instance); err != nil {
			return err
		}
	}
	// Whoever takes nothing is waited for as long as he stays, by nobody but this
	// call. When the server leaves he is cut off like every other.
	ctx, stop := context.WithCancel(stream.Context())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	watching.Go(func() { // who follows does not hold up the server when it leaves
		select {
		case <-s.server.leaving:
			stop()
		case <-ctx.Done():
		}
	})
	err := s.server.config.Agent.TailLogs(ctx, t, func(p agent.LogPiece) error {
		return stream.Send(&pb.TailLogsResponse{Position: p.Position, Data: p.Data, Missing: p.Missing})
	})
	if errors.Is(err, context.Canceled) && stream.Context().Err() == nil {
		return agentLeaves()
	}
	return err
}
