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

func (s *directoryService) FindService(ctx context.Context, r *pb.FindServiceRequest) (*pb.FindServiceResponse, error) {
	private := grantOf(ctx).reach == full
	var v violations
	switch r.GetBy().(type) {
	case *pb.FindServiceRequest_Instance:
		v.name("instance", r.GetInstance())
	case *pb.FindServiceRequest_Module:
		v.name("module", r.GetModule())
	default:
		v.add("by", "must be instance or module; set one of the two")
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	answer := &pb.FindServiceResponse{}
	if r.GetInstance() != "" {
		found, err := s.server.config.Agent.ServiceOf(ctx, r.GetInstance())
		if err != nil {
			return nil, err
		}
		answer.Services = []*pb.Service{serviceMessage(found, private)}
		return answer, nil
	}
	all, err := s.server.config.Agent.Services(ctx)
	if err != nil {
		return nil, err
	}
	for _, found := range all.Items {
		if found.ModuleName == r.GetModule() {
			answer.Services = append(answer.Services, serviceMessage(found, private))
		}
	}
	return answer, nil
}

func (s *directoryService) ResolveAddress(ctx context.Context, r *pb.ResolveAddressRequest) (*pb.ResolveAddressResponse, error) {
	var v violations
	v.name("ip_address", r.GetIpAddress())
	v.certainPort("port", r.GetPort())
	if err := v.err(); err != nil {
		return nil, err
	}
	address, port, translated, err := s.server.config.Agent.Resolve(ctx, r.GetIpAddress(), int(r.GetPort()))
	if err != nil {
		return nil, err
	}
	return &pb.ResolveAddressResponse{IpAddress: address, Port: int32(port), Translated: translated}, nil
}

func (s *directoryService) WatchServices(r *pb.WatchServicesRequest, stream grpc.ServerStreamingServer[pb.WatchServicesResponse]) error {
	ctx := stream.Context()
	return serveWatch(ctx, s.server, r, s.server.config.Agent.WatchServices, serviceUpdate(grantOf(ctx).reach == full), stream.Send)
}
