package server

import (
	"context"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/allexgo/machine-agent/agent"
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

// moduleList leaves commands out unless private things may be shown.
func moduleList(private bool) list[agent.ModuleState, *pb.Module] {
	return list[agent.ModuleState, *pb.Module]{
		name: "modules",
		key:  func(m agent.ModuleState) string { return m.Name },
		convert: func(m agent.ModuleState) *pb.Module {
			message := &pb.Module{Name: m.Name, File: m.File, Ready: string(m.Ready.Kind),
				Processes: int32(m.Processes), Outdated: int32(m.Outdated)}
			for _, p := range m.Ports {
				message.Ports = append(message.Ports, protocols[p])
			}
			if private {
				message.Command = m.Command
			}
			return message
		},
	}
}

func (s *agentService) ListModules(ctx context.Context, r *pb.ListModulesRequest) (*pb.ListModulesResponse, error) {
	private := grantOf(ctx).reach == full
	all, problem, err := s.server.config.Agent.Modules(ctx)
	if err != nil {
		return nil, err
	}
	page, next, err := moduleList(private).page(all, r)
	if err != nil {
		return nil, err
	}
	if !private && problem != "" {
		problem = "there are mistakes in the files; operators are told which"
	}
	return &pb.ListModulesResponse{Modules: page, NextPageToken: next, Problem: problem}, nil
}

func (s *agentService) Reload(ctx context.Context, r *pb.ReloadRequest) (*pb.ReloadResponse, error) {
	c, err := s.server.config.Agent.Reload(ctx, r.GetRestartOutdated())
	if err != nil {
		return nil, err
	}
	return &pb.ReloadResponse{Changed: c.Changed, Unchanged: c.Waiting, ModulesAdded: c.Added, ModulesChanged: c.Replaced,
		ModulesRemoved: c.Removed, Outdated: c.Outdated, Restarting: c.Restarting,
		ModulesUnchanged: c.Unchanged[:min(pageLimit, len(c.Unchanged))], ModulesUnchangedCount: int32(len(c.Unchanged))}, nil
}

func (s *agentService) SetLogLevel(_ context.Context, r *pb.SetLogLevelRequest) (*pb.SetLogLevelResponse, error) {
	before, err := s.server.config.Agent.SetLogLevel(r.GetLevel())
	if err != nil {
		return nil, err
	}
	return &pb.SetLogLevelResponse{Before: before}, nil
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
