package server

import (
	"context"

	"google.golang.org/grpc"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

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
