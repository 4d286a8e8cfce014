package server

import (
	"context"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// readyLimit is how long a program that takes over may be waited for.
const readyLimit = 10 * time.Minute

// agentService is machineagent.v1.AgentService.
type agentService struct {
	pb.UnsafeAgentServiceServer
	server *Server
}

func (s *agentService) GetStatus(ctx context.Context, _ *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	st, err := s.server.config.Agent.Status(ctx)
	if err != nil {
		return nil, err
	}
	return statusMessage(st), nil
}

func (s *agentService) Drain(ctx context.Context, _ *pb.DrainRequest) (*pb.DrainResponse, error) {
	stopping, err := s.server.config.Agent.Drain(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.DrainResponse{Stopping: int32(stopping)}, nil
}

func (s *agentService) Resume(ctx context.Context, _ *pb.ResumeRequest) (*pb.ResumeResponse, error) {
	if err := s.server.config.Agent.Resume(ctx); err != nil {
		return nil, err
	}
	return &pb.ResumeResponse{}, nil
}

func (s *agentService) WatchEvents(r *pb.WatchEventsRequest, stream grpc.ServerStreamingServer[pb.WatchEventsResponse]) error {
	return serveWatch(stream.Context(), s.server, r, s.server.config.Agent.WatchEvents, eventUpdate, stream.Send)
}

func (s *agentService) Shutdown(ctx context.Context, _ *pb.ShutdownRequest) (*pb.ShutdownResponse, error) {
	stopping, err := s.server.config.Agent.Shutdown(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.ShutdownResponse{Stopping: int32(stopping)}, nil
}

func (s *agentService) Upgrade(ctx context.Context, r *pb.UpgradeRequest) (*pb.UpgradeResponse, error) {
	var v violations
	if b := r.GetBinary(); b != "" && !filepath.IsAbs(b) {
		v.add("binary", "is %q; it must be an absolute path, or empty for the program that runs", b)
	}
	within := r.GetReadyWithin().AsDuration()
	if r.ReadyWithin != nil && (r.ReadyWithin.CheckValid() != nil || within <= 0 || within > readyLimit) {
		v.add("ready_within", "must be more than nothing and at most %s", readyLimit)
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	id, err := s.server.config.Upgrader.Upgrade(ctx, r.GetBinary(), within)
	if err != nil {
		return nil, err
	}
	return &pb.UpgradeResponse{Id: id}, nil
}
