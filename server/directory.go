package server

import (
	"context"

	"google.golang.org/grpc"

	"github.com/allexgo/machine-agent/agent"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// directoryService is machineagent.v1.DirectoryService.
type directoryService struct {
	pb.UnsafeDirectoryServiceServer
	server *Server
}

// serviceList is as needList.
func serviceList(private bool) list[agent.Service, *pb.Service] {
	return list[agent.Service, *pb.Service]{
		name:    "services",
		key:     func(s agent.Service) string { return s.InstanceName },
		convert: func(s agent.Service) *pb.Service { return serviceMessage(s, private) },
	}
}

func (s *directoryService) ListServices(ctx context.Context, r *pb.ListServicesRequest) (*pb.ListServicesResponse, error) {
	all, err := s.server.config.Agent.Services(ctx)
	if err != nil {
		return nil, err
	}
	page, next, err := serviceList(grantOf(ctx).reach == full).page(all.Items, r)
	if err != nil {
		return nil, err
	}
	return &pb.ListServicesResponse{Services: page, NextPageToken: next, Epoch: all.At.Epoch, Revision: all.At.Revision}, nil
}

func (s *directoryService) WatchServices(r *pb.WatchServicesRequest, stream grpc.ServerStreamingServer[pb.WatchServicesResponse]) error {
	ctx := stream.Context()
	return serveWatch(ctx, s.server, r, s.server.config.Agent.WatchServices, serviceUpdate(grantOf(ctx).reach == full), stream.Send)
}
