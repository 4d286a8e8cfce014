package server

import (
	"context"
	"fmt"

	"github.com/allexgo/machine-agent/agent"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// portService is machineagent.v1.PortService.
type portService struct {
	pb.UnsafePortServiceServer
	server *Server
}

var portList = list[agent.PortLease, *pb.PortLease]{
	name:    "ports",
	key:     func(l agent.PortLease) string { return fmt.Sprintf("%05d", l.Port) },
	convert: leaseMessage,
}

func (s *portService) ListPorts(ctx context.Context, r *pb.ListPortsRequest) (*pb.ListPortsResponse, error) {
	all, err := s.server.config.Agent.Ports(ctx)
	if err != nil {
		return nil, err
	}
	page, next, err := portList.page(all, r)
	if err != nil {
		return nil, err
	}
	return &pb.ListPortsResponse{Leases: page, NextPageToken: next}, nil
}
