package server

import (
	"context"
	"fmt"

	"github.com/allexgo/machine-agent/agent"
	"github.com/allexgo/machine-agent/agent/port"
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

func (s *portService) ReservePort(ctx context.Context, r *pb.ReservePortRequest) (*pb.ReservePortResponse, error) {
	var v violations
	v.port("port", r.GetPort())
	protocol, known := protocolOf(r.GetProtocol())
	if !known {
		v.add("protocol", "must be PROTOCOL_TCP, PROTOCOL_HTTP or PROTOCOL_WS")
	}
	g := grantOf(ctx)
	if r.GetPid() < 0 {
		v.add("pid", "is %d; it must be that of a process, or 0 for the caller", r.GetPid())
	}
	if r.GetInstance() != "" && r.GetPid() != 0 {
		v.add("instance", "is named beside pid; one of them says who holds the port")
	}
	v.length("instance", r.GetInstance(), nameLimit)
	if err := v.err(); err != nil {
		return nil, err
	}
	if err := g.own("reserve ports for", r.GetInstance()); err != nil {
		return nil, err
	}
	want := agent.Reservation{Protocol: protocol, Port: int(r.GetPort()), PID: int(r.GetPid()), Instance: r.GetInstance()}
	switch {
	case g.class == child && want.PID != 0 && want.PID != g.caller.pid:
		return nil, denied(g.caller, g.owner.Instance, "instance %q may reserve ports only for itself, not for pid %d; leave pid out", g.owner.Instance, want.PID)
	case want.Instance != "":
	case g.class == child, want.PID == 0 && g.owner.Instance != "":
		want.Instance = g.owner.Instance
	case want.PID == 0:
		want.PID = g.caller.pid
	}
	lease, err := s.server.config.Agent.ReservePort(ctx, want)
	if err != nil {
		return nil, err
	}
	return &pb.ReservePortResponse{Lease: leaseMessage(lease)}, nil
}

func (s *portService) ReleasePort(ctx context.Context, r *pb.ReleasePortRequest) (*pb.ReleasePortResponse, error) {
	var v violations
	v.certainPort("port", r.GetPort())
	if err := v.err(); err != nil {
		return nil, err
	}
	g := grantOf(ctx)
	var only string
	if g.class == child {
		only = g.owner.Instance
	}
	if err := s.server.config.Agent.ReleasePort(ctx, int(r.GetPort()), only); err != nil {
		return nil, err
	}
	return &pb.ReleasePortResponse{}, nil
}

func (s *portService) CheckPort(ctx context.Context, r *pb.CheckPortRequest) (*pb.CheckPortResponse, error) {
	var v violations
	v.certainPort("port", r.GetPort())
	if err := v.err(); err != nil {
		return nil, err
	}
	c, err := s.server.config.Agent.CheckPort(ctx, int(r.GetPort()))
	if err != nil {
		return nil, err
	}
	answer := &pb.CheckPortResponse{Free: c.Free, Detail: c.Detail}
	if c.Lease != nil {
		answer.Lease = leaseMessage(*c.Lease)
	}
	return answer, nil
}

// protocolOf is the inverse of protocols.
func protocolOf(p pb.Protocol) (port.Protocol, bool) {
	for ours, theirs := range protocols {
		if theirs == p {
			return ours, true
		}
	}
	return 0, false
}
