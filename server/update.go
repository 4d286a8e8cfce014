package server

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/allexgo/machine-agent/agent"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// This file is what watches tell, as messages.

func processUpdate(epoch string, u update[agent.Process]) *pb.WatchProcessesResponse {
	m := &pb.WatchProcessesResponse{Epoch: epoch, Revision: u.Revision}
	switch {
	case u.kind == aBookmark:
		m.Update = &pb.WatchProcessesResponse_Bookmark{Bookmark: &pb.Bookmark{}}
	case u.kind == theInitialEnd:
		m.Update = &pb.WatchProcessesResponse_InitialEnd{InitialEnd: &pb.InitialEnd{}}
	case u.Gone:
		m.Update = &pb.WatchProcessesResponse_Gone{Gone: u.Key}
	default:
		m.Update = &pb.WatchProcessesResponse_Process{Process: processMessage(u.Value)}
	}
	return m
}

// needUpdate leaves property hashes out unless private things may be shown.
func needUpdate(private bool) func(string, update[agent.NeedDecision]) *pb.WatchNeedsResponse {
	return func(epoch string, u update[agent.NeedDecision]) *pb.WatchNeedsResponse {
		m := &pb.WatchNeedsResponse{Epoch: epoch, Revision: u.Revision}
		switch {
		case u.kind == aBookmark:
			m.Update = &pb.WatchNeedsResponse_Bookmark{Bookmark: &pb.Bookmark{}}
		case u.kind == theInitialEnd:
			m.Update = &pb.WatchNeedsResponse_InitialEnd{InitialEnd: &pb.InitialEnd{}}
		case u.Gone:
			m.Update = &pb.WatchNeedsResponse_Gone{Gone: u.Key}
		default:
			m.Update = &pb.WatchNeedsResponse_Need{Need: decisionMessage(u.Value, private)}
		}
		return m
	}
}

// serviceUpdate is as needUpdate.
func serviceUpdate(private bool) func(string, update[agent.Service]) *pb.WatchServicesResponse {
	return func(epoch string, u update[agent.Service]) *pb.WatchServicesResponse {
		m := &pb.WatchServicesResponse{Epoch: epoch, Revision: u.Revision}
		switch {
		case u.kind == aBookmark:
			m.Update = &pb.WatchServicesResponse_Bookmark{Bookmark: &pb.Bookmark{}}
		case u.kind == theInitialEnd:
			m.Update = &pb.WatchServicesResponse_InitialEnd{InitialEnd: &pb.InitialEnd{}}
		case u.Gone:
			m.Update = &pb.WatchServicesResponse_Gone{Gone: u.Key}
		default:
			m.Update = &pb.WatchServicesResponse_Service{Service: serviceMessage(u.Value, private)}
		}
		return m
	}
}

func eventUpdate(epoch string, u update[agent.Event]) *pb.WatchEventsResponse {
	m := &pb.WatchEventsResponse{Epoch: epoch, Revision: u.Revision}
	switch u.kind {
	case aBookmark:
		m.Update = &pb.WatchEventsResponse_Bookmark{Bookmark: &pb.Bookmark{}}
	case theInitialEnd:
		m.Update = &pb.WatchEventsResponse_InitialEnd{InitialEnd: &pb.InitialEnd{}}
	default:
		m.Update = &pb.WatchEventsResponse_Event{Event: eventMessage(u.Value)}
	}
	return m
}

func eventMessage(e agent.Event) *pb.Event {
	return &pb.Event{
		Time:       timestamppb.New(e.Time),
		Kind:       eventKinds[e.Kind],
		Instance:   e.Instance,
		Module:     e.Module,
		Pid:        int32(e.PID),
		ServedAt:   e.ServedAt,
		ExitStatus: exitMessage(e.Exit),
		Decision:   decisions[e.Decision],
		Detail:     e.Detail,
	}
}

func serviceMessage(s agent.Service, private bool) *pb.Service {
	m := &pb.Service{
		Instance:   s.InstanceName,
		Module:     s.ModuleName,
		IpAddress:  s.IPAddress,
		Ports:      portsMessage(s.Ports),
		ServedHere: s.Here,
	}
	if private {
		m.PropertyHash = structMessage(s.PropertyHash)
	}
	return m
}
