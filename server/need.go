package server

import (
	"context"

	"google.golang.org/grpc"

	"github.com/allexgo/machine-agent/agent"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// needService is machineagent.v1.NeedService.
type needService struct {
	pb.UnsafeNeedServiceServer
	server *Server
}

// needList is the list of needs, with or without what is private in them. A
// token of the one is good for the other.
func needList(private bool) list[agent.NeedDecision, *pb.NeedDecision] {
	return list[agent.NeedDecision, *pb.NeedDecision]{
		name:    "needs",
		key:     func(d agent.NeedDecision) string { return d.Need.InstanceName },
		convert: func(d agent.NeedDecision) *pb.NeedDecision { return decisionMessage(d, private) },
	}
}

func (s *needService) ListNeeds(ctx context.Context, r *pb.ListNeedsRequest) (*pb.ListNeedsResponse, error) {
	all, err := s.server.config.Agent.Needs(ctx)
	if err != nil {
		return nil, err
	}
	page, next, err := needList(grantOf(ctx).reach == full).page(all.Items, r)
	if err != nil {
		return nil, err
	}
	return &pb.ListNeedsResponse{Needs: page, NextPageToken: next, Epoch: all.At.Epoch, Revision: all.At.Revision}, nil
}

func (s *needService) WatchNeeds(r *pb.WatchNeedsRequest, stream grpc.ServerStreamingServer[pb.WatchNeedsResponse]) error {
	ctx := stream.Context()
	return serveWatch(ctx, s.server, r, s.server.config.Agent.WatchNeeds, needUpdate(grantOf(ctx).reach == full), stream.Send)
}

func (s *needService) AddNeed(ctx context.Context, r *pb.AddNeedRequest) (*pb.AddNeedResponse, error) {
	n := r.GetNeed()
	var v violations
	v.name("need.instance", n.GetInstance())
	v.name("need.module", n.GetModule())
	v.ports("need.fixed_ports", n.GetFixedPorts())
	v.address("need.ip_address", n.GetIpAddress())
	need, err := needOf(n)
	if err != nil {
		v.add("need.property_hash", "is not JSON: %v", err)
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	if err := s.server.config.Agent.AddNeed(ctx, need); err != nil {
		return nil, err
	}
	return &pb.AddNeedResponse{}, nil
}

func (s *needService) RemoveNeed(ctx context.Context, r *pb.RemoveNeedRequest) (*pb.RemoveNeedResponse, error) {
	var v violations
	v.name("instance", r.GetInstance())
	if err := v.err(); err != nil {
		return nil, err
	}
	if err := s.server.config.Agent.RemoveNeed(ctx, r.GetInstance()); err != nil {
		return nil, err
	}
	return &pb.RemoveNeedResponse{}, nil
}
