package server

import (
	"context"

	"google.golang.org/grpc"

	"github.com/allexgo/machine-agent/agent"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// processService is machineagent.v1.ProcessService.
type processService struct {
	pb.UnsafeProcessServiceServer // a method that is missing does not compile
	server                        *Server
}

var processList = list[agent.Process, *pb.Process]{
	name:    "processes",
	key:     func(p agent.Process) string { return p.Instance },
	convert: processMessage,
}

func (s *processService) RegisterProcess(ctx context.Context, r *pb.RegisterProcessRequest) (*pb.RegisterProcessResponse, error) {
	var v violations
	v.length("instance", r.GetInstance(), nameLimit)
	v.length("module", r.GetModule(), nameLimit)
	v.length("status_text", r.GetStatusText(), textLimit)
	v.ports("ports", r.GetPorts())
	if r.GetPid() < 0 {
		v.add("pid", "is %d; it must be that of a process, or 0 for the caller", r.GetPid())
	}
	g := grantOf(ctx)
	if r.GetInstance() == "" && g.owner.Instance == "" {
		v.add("instance", "must be set: the agent did not start the caller")
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	if err := s.mayRegister(ctx, g, r); err != nil {
		return nil, err
	}
	p, err := s.server.config.Agent.Register(ctx, agent.Registration{
		Instance:   r.GetInstance(),
		PID:        int(r.GetPid()),
		Module:     r.GetModule(),
		Ports:      portsOf(r.GetPorts()),
		StatusText: r.GetStatusText(),
		CallerPID:  g.caller.pid,
		CallerUID:  g.caller.uid,
		Caller:     g.owner.Instance,
		Privileged: g.class == operator,
	})
	if err != nil {
		return nil, err
	}
	return &pb.RegisterProcessResponse{Process: processMessage(p)}, nil
}

// mayRegister holds a caller that may register only itself to that. A child
// means its instance, whichever process of its tree it names.
func (s *processService) mayRegister(ctx context.Context, g grant, r *pb.RegisterProcessRequest) error {
	if g.reach == full {
		return nil
	}
	if err := g.own("register", r.GetInstance()); err != nil {
		return err
	}
	pid := int(r.GetPid())
	if pid == 0 || pid == g.caller.pid {
		return nil
	}
	if g.class == child {
		owner, err := s.server.config.Agent.Owner(ctx, pid)
		if err != nil || owner.Instance == g.owner.Instance {
			return err
		}
	}
	return denied(g.caller, g.owner.Instance, "%s may register only itself, not pid %d; leave pid out, "+
		"or call as root or the agent's own user", g.caller, pid)
}

func (s *processService) ReportDown(ctx context.Context, r *pb.ReportDownRequest) (*pb.ReportDownResponse, error) {
	g := grantOf(ctx)
	instance := r.GetInstance()
	if instance == "" {
		instance = g.owner.Instance
	}
	var v violations
	v.name("instance", instance)
	v.length("reason", r.GetReason(), textLimit)
	if err := v.err(); err != nil {
		return nil, err
	}
	if g.reach != full {
		if err := g.own("report down", instance); err != nil {
			return nil, err
		}
	}
	p, err := s.server.config.Agent.ReportDown(ctx, instance, r.GetReason())
	if err != nil {
		return nil, err
	}
	return &pb.ReportDownResponse{Process: processMessage(p)}, nil
}

func (s *processService) GetProcess(ctx context.Context, r *pb.GetProcessRequest) (*pb.GetProcessResponse, error) {
	p, err := on(ctx, r, s.server.config.Agent.Process)
	if err == nil && r.GetUsage() {
		err = s.measure(ctx, p)
	}
	if err != nil {
		return nil, err
	}
	return &pb.GetProcessResponse{Process: p}, nil
}

func (s *processService) ListProcesses(ctx context.Context, r *pb.ListProcessesRequest) (*pb.ListProcessesResponse, error) {
	all, err := s.server.config.Agent.Processes(ctx)
	if err != nil {
		return nil, err
	}
	page, next, err := processList.page(all.Items, r)
	if err == nil && r.GetUsage() {
		err = s.measure(ctx, page...)
	}
	if err != nil {
		return nil, err
	}
	return &pb.ListProcessesResponse{Processes: page, NextPageToken: next, Epoch: all.At.Epoch, Revision: all.At.Revision}, nil
}

func (s *processService) WatchProcesses(r *pb.WatchProcessesRequest, stream grpc.ServerStreamingServer[pb.WatchProcessesResponse]) error {
	return serveWatch(stream.Context(), s.server, r, s.server.config.Agent.WatchProcesses, processUpdate, stream.Send)
}

// measure fills in what processes use.
func (s *processService) measure(ctx context.Context, processes ...*pb.Process) error {
	names := make([]string, len(processes))
	for i, p := range processes {
		names[i] = p.GetInstance()
	}
	all, err := s.server.config.Agent.Usage(ctx, names)
	for _, p := range processes {
		if u, ok := all[p.GetInstance()]; ok {
			p.Usage = usageMessage(u)
		}
	}
	return err
}

func (s *processService) StopProcess(ctx context.Context, r *pb.StopProcessRequest) (*pb.StopProcessResponse, error) {
	p, err := on(ctx, r, s.server.config.Agent.Stop)
	if err != nil {
		return nil, err
	}
	return &pb.StopProcessResponse{Process: p}, nil
}

func (s *processService) StartProcess(ctx context.Context, r *pb.StartProcessRequest) (*pb.StartProcessResponse, error) {
	p, err := on(ctx, r, s.server.config.Agent.Start)
	if err != nil {
		return nil, err
	}
	return &pb.StartProcessResponse{Process: p}, nil
}

func (s *processService) RestartProcess(ctx context.Context, r *pb.RestartProcessRequest) (*pb.RestartProcessResponse, error) {
	p, err := on(ctx, r, s.server.config.Agent.Restart)
	if err != nil {
		return nil, err
	}
	return &pb.RestartProcessResponse{Process: p}, nil
}

func (s *processService) SignalProcess(ctx context.Context, r *pb.SignalProcessRequest) (*pb.SignalProcessResponse, error) {
	var v violations
	v.name("instance", r.GetInstance())
	v.name("signal", r.GetSignal())
	if err := v.err(); err != nil {
		return nil, err
	}
	if err := s.server.config.Agent.Signal(ctx, r.GetInstance(), r.GetSignal()); err != nil {
		return nil, err
	}
	return &pb.SignalProcessResponse{}, nil
}

// on does what a request asks for on the one instance that it names.
func on(ctx context.Context, r interface{ GetInstance() string },
	do func(context.Context, string) (agent.Process, error)) (*pb.Process, error) {
	var v violations
	v.name("instance", r.GetInstance())
	if err := v.err(); err != nil {
		return nil, err
	}
	p, err := do(ctx, r.GetInstance())
	if err != nil {
		return nil, err
	}
	return processMessage(p), nil
}
