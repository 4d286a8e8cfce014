//go:build !windows

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// moment is when the commands are run, and before is some time earlier.
var moment = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(moment.Add(-d)) }

// fake is an agent whose machine stands still. It serves lists in pages of
// two and remembers the last request that was to change something.
type fake struct {
	pb.UnsafeProcessServiceServer
	pb.UnsafePortServiceServer
	pb.UnsafeNeedServiceServer
	pb.UnsafeDirectoryServiceServer
	pb.UnsafeAgentServiceServer

	status  *pb.GetStatusResponse
	asked   proto.Message
	failure error                           // of every call, if there is one
	hang    func(ctx context.Context) error // in GetStatus, if set
	left    [][]*pb.Process                 // if set, of ListProcesses, one after the other

	part     bool // the caller is part of the process of echo
	upgraded bool
	deadline time.Time // of the call for the upgrade
	problem  string    // of the upgrade
}

// served is an agent that may differ from a fake in some calls.
type served interface {
	pb.ProcessServiceServer
	pb.PortServiceServer
	pb.NeedServiceServer
	pb.DirectoryServiceServer
	pb.AgentServiceServer
}

// serve lets f answer on a socket of its own and returns the address.
func serve(t *testing.T, f served) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterProcessServiceServer(s, f)
	pb.RegisterPortServiceServer(s, f)
	pb.RegisterNeedServiceServer(s, f)
	pb.RegisterDirectoryServiceServer(s, f)
	pb.RegisterAgentServiceServer(s, f)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return path
}

// slice cuts a page of two out of a list.
func slice[T any](all []T, token string) (page []T, next string) {
	from, _ := strconv.Atoi(token)
	to := min(from+2, len(all))
	if to < len(all) {
		next = strconv.Itoa(to)
	}
	return all[from:to], next
}

// refuse makes the errors that the agent makes.
func refuse(code codes.Code, message, reason string, metadata map[string]string) error {
	s, err := status.New(code, message).WithDetails(
		&errdetails.ErrorInfo{Domain: "machineagent", Reason: reason, Metadata: metadata})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func (f *fake) GetStatus(ctx context.Context, _ *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	if f.hang != nil {
		return nil, f.hang(ctx)
	}
	if f.status != nil {
		return f.status, f.failure
	}
	var last *pb.LastUpgrade
	if f.upgraded {
		last = &pb.LastUpgrade{Id: "this-one", FromVersion: "1.2.2", Time: before(time.Second), Problem: f.problem}
	}
	return &pb.GetStatusResponse{
		LastUpgrade: last,
		Version:     "1.2.3", Name: "alpha", Pid: 811, StartTime: before(75 * time.Hour),
		Link:      &pb.Link{Connected: true, LanManager: "10.0.0.1:23552", SeenAs: "10.0.0.7", SinceTime: before(90 * time.Minute)},
		Processes: 6, MaxProcesses: 10, OpenNeeds: 7, Services: 12, ServedHere: 4, Cgroups: true,
	}, f.failure
}

func (f *fake) Drain(_ context.Context, r *pb.DrainRequest) (*pb.DrainResponse, error) {
	f.asked = r
	return &pb.DrainResponse{Stopping: 6}, f.failure
}

func (f *fake) Resume(_ context.Context, r *pb.ResumeRequest) (*pb.ResumeResponse, error) {
	f.asked = r
	return &pb.ResumeResponse{}, f.failure
}

func (f *fake) Upgrade(ctx context.Context, r *pb.UpgradeRequest) (*pb.UpgradeResponse, error) {
	f.asked, f.upgraded = r, true
	f.deadline, _ = ctx.Deadline()
	return &pb.UpgradeResponse{Id: "this-one"}, f.failure
}

func (f *fake) Shutdown(_ context.Context, r *pb.ShutdownRequest) (*pb.ShutdownResponse, error) {
	f.asked = r
	return &pb.ShutdownResponse{Stopping: 6}, f.failure
}

func (f *fake) ListPorts(_ context.Context, r *pb.ListPortsRequest) (*pb.ListPortsResponse, error) {
	leases, next := slice([]*pb.PortLease{
		{Protocol: pb.Protocol_PROTOCOL_TCP, Port: 15000, Instance: "echo-1", Pid: 4711, State: pb.PortState_PORT_STATE_LISTENING, Listener: pb.PortListener_PORT_LISTENER_OURS},
		{Protocol: pb.Protocol_PROTOCOL_TCP, Port: 15001, Instance: "starting", State: pb.PortState_PORT_STATE_RESERVED, Listener: pb.PortListener_PORT_LISTENER_NOBODY},
		{Protocol: pb.Protocol_PROTOCOL_HTTP, Port: 16000, Instance: "adopted", Pid: 4713, State: pb.PortState_PORT_STATE_ADOPTED, Listener: pb.PortListener_PORT_LISTENER_STRANGER, Detail: "held by pid 5 (thief)"},
		{Protocol: pb.Protocol_PROTOCOL_WS, Port: 17000, Instance: "by-hand", Pid: 99, State: pb.PortState_PORT_STATE_OUTSIDE, Listener: pb.PortListener_PORT_LISTENER_UNKNOWN},
		{Protocol: pb.Protocol_PROTOCOL_WS, Port: 17001, Instance: "younger", Pid: 100, State: 77},
	}, r.PageToken)
	return &pb.ListPortsResponse{Leases: leases, NextPageToken: next}, f.failure
}

func (f *fake) ListNeeds(_ context.Context, r *pb.ListNeedsRequest) (*pb.ListNeedsResponse, error) {
	property, err := structpb.NewStruct(map[string]any{"rooms": 3})
	if err != nil {
		return nil, err
	}
	need := func(instance string) *pb.Need { return &pb.Need{Instance: instance, Module: "allex_" + instance} }
	needs, next := slice([]*pb.NeedDecision{
		{Need: need("bid"), Decision: pb.Decision_DECISION_BID, Detail: "the offer is with the LAN manager"},
		{
			Need:     &pb.Need{Instance: "cidr", Module: "m", IpAddress: "10.9.0.0/16", PropertyHash: property},
			Decision: pb.Decision_DECISION_ADDRESS, Detail: "the need asks for a machine at 10.9.0.0/16, this one is 10.0.0.7",
		},
		{
			Need: need("crashes"), Decision: pb.Decision_DECISION_BACKOFF, RetryTime: before(-11500 * time.Millisecond),
			Detail: "its process ended too soon, 4 times, last: it ended by itself (exit code 3)",
		},
		{Need: need("elsewhere"), Decision: pb.Decision_DECISION_SERVED_ELSEWHERE, ServedAt: "10.0.0.8", Detail: "by 10.0.0.8"},
		{
			Need:     &pb.Need{Instance: "fixed", Module: "m", FixedPorts: &pb.Ports{Http: 80}},
			Decision: pb.Decision_DECISION_PORT_TAKEN, RetryTime: before(-5 * time.Second), Detail: "another program has http port 80",
		},
		{Need: need("full"), Decision: pb.Decision_DECISION_CAPACITY, Detail: "this machine runs 10 of at most 10; `maxprocesses` in the configuration says how many it may"},
		{Need: need("here"), Decision: pb.Decision_DECISION_SERVED_HERE, ServedAt: "10.0.0.7"},
		{Need: &pb.Need{Instance: "held"}, Decision: pb.Decision_DECISION_HELD, Detail: "held by an operator; the LAN shows no need of that name"},
		{Need: need("hostile\x1b[2J\n\tname\u202e"), Decision: pb.Decision_DECISION_NOT_CATALOGUED, Detail: "no module \"allex_hostile\" here\nand no second line"},
		{Need: need("pending"), Decision: pb.Decision_DECISION_BID_PENDING, Detail: "another agent has the LAN manager's word and was asked to start it"},
		{Need: need("starting"), Decision: pb.Decision_DECISION_STARTING, Detail: "pid 4712 is not ready yet"},
		{Need: need("younger"), Decision: 77, Detail: "something new"},
	}, r.PageToken)
	return &pb.ListNeedsResponse{Needs: needs, NextPageToken: next}, f.failure
}

func (f *fake) ListServices(_ context.Context, r *pb.ListServicesRequest) (*pb.ListServicesResponse, error) {
	services, next := slice([]*pb.Service{
		{Instance: "echo-1", Module: "allex_echo", IpAddress: "10.0.0.7", Ports: &pb.Ports{Tcp: 15000, Http: 16001, Ws: 17001}, ServedHere: true},
		{Instance: "elsewhere", Module: "allex_elsewhere", IpAddress: "10.0.0.8", Ports: &pb.Ports{Ws: 17003}},
		{Instance: "hostile\x1b[2J", Module: "m", IpAddress: "10.0.0.9"},
	}, r.PageToken)
	return &pb.ListServicesResponse{Services: services, NextPageToken: next, Epoch: "EPOCH", Revision: uint64(41 + len(r.PageToken))}, f.failure
}

func (f *fake) WatchServices(_ *pb.WatchServicesRequest, to grpc.ServerStreamingServer[pb.WatchServicesResponse]) error {
	all, err := f.ListServices(to.Context(), &pb.ListServicesRequest{})
	if err != nil {
		return err
	}
	for _, s := range all.Services {
		if err := to.Send(&pb.WatchServicesResponse{Epoch: "EPOCH", Revision: 40, Update: &pb.WatchServicesResponse_Service{Service: s}}); err != nil {
			return err
		}
	}
	return f.over(
		to.Send(&pb.WatchServicesResponse{Epoch: "EPOCH", Revision: 41, Update: &pb.WatchServicesResponse_InitialEnd{InitialEnd: &pb.InitialEnd{}}}),
		to.Send(&pb.WatchServicesResponse{Epoch: "EPOCH", Revision: 42, Update: &pb.WatchServicesResponse_Gone{Gone: "elsewhere"}}),
	)
}

func (f *fake) WatchNeeds(_ *pb.WatchNeedsRequest, to grpc.ServerStreamingServer[pb.WatchNeedsResponse]) error {
	all, err := f.ListNeeds(to.Context(), &pb.ListNeedsRequest{})
	if err != nil {
		return err
	}
	for _, n := range all.Needs {
		if err := to.Send(&pb.WatchNeedsResponse{Epoch: "EPOCH", Revision: 40, Update: &pb.WatchNeedsResponse_Need{Need: n}}); err != nil {
			return err
		}
	}
	return f.over(
		to.Send(&pb.WatchNeedsResponse{Epoch: "EPOCH", Revision: 41, Update: &pb.WatchNeedsResponse_InitialEnd{InitialEnd: &pb.InitialEnd{}}}),
		to.Send(&pb.WatchNeedsResponse{Epoch: "EPOCH", Revision: 42, Update: &pb.WatchNeedsResponse_Gone{Gone: "bid"}}),
	)
}

func (f *fake) WatchProcesses(_ *pb.WatchProcessesRequest, to grpc.ServerStreamingServer[pb.WatchProcessesResponse]) error {
	all, err := f.ListProcesses(to.Context(), &pb.ListProcessesRequest{})
	if err != nil {
		return err
	}
	tell := func(revision uint64, p *pb.Process) error {
		return to.Send(&pb.WatchProcessesResponse{Epoch: "EPOCH", Revision: revision, Update: &pb.WatchProcessesResponse_Process{Process: p}})
	}
	for _, p := range all.Processes {
		if err := tell(40, p); err != nil {
			return err
		}
	}
	return f.over(
		to.Send(&pb.WatchProcessesResponse{Epoch: "EPOCH", Revision: 41, Update: &pb.WatchProcessesResponse_InitialEnd{InitialEnd: &pb.InitialEnd{}}}),
		tell(42, echo(pb.ProcessState_PROCESS_STATE_READY, "an-instance-of-a-long-name")),
		to.Send(&pb.WatchProcessesResponse{Epoch: "EPOCH", Revision: 43, Update: &pb.WatchProcessesResponse_Gone{Gone: "by-hand"}}),
	)
}

func (f *fake) WatchEvents(_ *pb.WatchEventsRequest, to grpc.ServerStreamingServer[pb.WatchEventsResponse]) error {
	tell := func(revision uint64, e *pb.Event) error {
		e.Time = before(time.Minute - time.Duration(revision)*time.Second)
		return to.Send(&pb.WatchEventsResponse{Epoch: "EPOCH", Revision: revision, Update: &pb.WatchEventsResponse_Event{Event: e}})
	}
	return f.over(
		tell(1, &pb.Event{Kind: pb.EventKind_EVENT_KIND_LINK_UP, Detail: "with 10.0.0.1:23552, seen as 10.0.0.7; open needs: 7, services: 12"}),
		tell(2, &pb.Event{Kind: pb.EventKind_EVENT_KIND_NEED_DECIDED, Instance: "echo", Module: "allex_echo", Decision: pb.Decision_DECISION_SERVED_ELSEWHERE, ServedAt: "10.0.0.8", Detail: "by 10.0.0.8"}),
		tell(3, &pb.Event{Kind: pb.EventKind_EVENT_KIND_PROCESS_STARTED, Instance: "echo", Module: "allex_echo", Pid: 4711}),
		tell(4, &pb.Event{Kind: pb.EventKind_EVENT_KIND_PROCESS_ENDED, Instance: "echo", Module: "allex_echo", Pid: 4711, ExitStatus: &pb.ExitStatus{Status: &pb.ExitStatus_Signal{Signal: "SIGKILL"}}, Detail: "it ended by itself"}),
		tell(5, &pb.Event{Kind: 77, Instance: "younger\x1b[2J"}),
		to.Send(&pb.WatchEventsResponse{Epoch: "EPOCH", Revision: 5, Update: &pb.WatchEventsResponse_InitialEnd{InitialEnd: &pb.InitialEnd{}}}),
		tell(6, &pb.Event{Kind: pb.EventKind_EVENT_KIND_HELD, Instance: "echo"}),
	)
}

// over ends a watch that nobody interrupts, and in which these were sent.
func (f *fake) over(sent ...error) error {
	if err := errors.Join(append(sent, f.failure)...); err != nil {
		return err
	}
	return refuse(codes.PermissionDenied, "that is over; go home", "CALLER_NOT_ALLOWED", nil)
}

func (f *fake) FindService(_ context.Context, r *pb.FindServiceRequest) (*pb.FindServiceResponse, error) {
	f.asked = r
	return &pb.FindServiceResponse{Services: []*pb.Service{
		{Instance: "echo", Module: "allex_echo", IpAddress: "10.0.0.8", Ports: &pb.Ports{Ws: 17003}},
	}}, f.failure
}

func (f *fake) ResolveAddress(context.Context, *pb.ResolveAddressRequest) (*pb.ResolveAddressResponse, error) {
	return &pb.ResolveAddressResponse{}, f.failure
}

func (f *fake) ReservePort(_ context.Context, r *pb.ReservePortRequest) (*pb.ReservePortResponse, error) {
	f.asked = r
	lease := &pb.PortLease{Protocol: r.Protocol, Port: cmp.Or(r.Port, 16002), Instance: r.Instance, Pid: r.Pid,
		State: pb.PortState_PORT_STATE_RESERVED, Listener: pb.PortListener_PORT_LISTENER_NOBODY}
	switch {
	case r.Instance != "":
		lease.Pid = 4711
	case r.Pid != 0:
		lease.Instance = fmt.Sprintf("(pid %d)", r.Pid)
	case f.part:
		lease.Instance, lease.Pid = "echo", 4711
	default:
		lease.Pid = int32(os.Getpid())
	}
	return &pb.ReservePortResponse{Lease: lease}, f.failure
}

func (f *fake) ReleasePort(_ context.Context, r *pb.ReleasePortRequest) (*pb.ReleasePortResponse, error) {
	f.asked = r
	return &pb.ReleasePortResponse{}, f.failure
}

func (f *fake) CheckPort(_ context.Context, r *pb.CheckPortRequest) (*pb.CheckPortResponse, error) {
	f.asked = r
	if r.Port == 8080 {
		return &pb.CheckPortResponse{Free: true}, f.failure
	}
	return &pb.CheckPortResponse{Detail: "leased to adopted; held by pid 5 (thief)", Lease: &pb.PortLease{
		Protocol: pb.Protocol_PROTOCOL_HTTP, Port: r.Port, Instance: "adopted", Pid: 4713, State: pb.PortState_PORT_STATE_ADOPTED,
		Listener: pb.PortListener_PORT_LISTENER_STRANGER, Detail: "held by pid 5 (thief)"}}, f.failure
}

func (f *fake) ListModules(_ context.Context, r *pb.ListModulesRequest) (*pb.ListModulesResponse, error) {
	modules, next := slice([]*pb.Module{
		{Name: "allex_echo", File: "/srv/a/modules/echo.json", Command: []string{"/bin/echo", "${httpport}"}, Ready: "port",
			Ports: []pb.Protocol{pb.Protocol_PROTOCOL_TCP, pb.Protocol_PROTOCOL_HTTP}, Processes: 3, Outdated: 1},
		{Name: "dotnet:*", File: "/srv/a/modules/dotnet.json", Ready: "register"},
		{Name: "files", File: "/srv/a/modules/files.json", Command: []string{"/usr/bin/python3"}, Ready: "http", Ports: []pb.Protocol{77}},
	}, r.PageToken)
	return &pb.ListModulesResponse{Modules: modules, NextPageToken: next, Problem: "/srv/a/modules/broken.json:3:7: wrong\nand more"}, f.failure
}

func (f *fake) Reload(_ context.Context, r *pb.ReloadRequest) (*pb.ReloadResponse, error) {
	f.asked = r
	return &pb.ReloadResponse{Changed: []string{"maxprocesses", "log.level"}, Unchanged: []string{"socket"}, ModulesAdded: []string{"new"},
		ModulesChanged: []string{"allex_echo"}, ModulesRemoved: []string{"old"}, Outdated: []string{"by-hand"}, Restarting: []string{"echo"},
		ModulesUnchanged: []string{"dotnet:*", "files"}, ModulesUnchangedCount: 2}, f.failure
}

func (f *fake) SetLogLevel(_ context.Context, r *pb.SetLogLevelRequest) (*pb.SetLogLevelResponse, error) {
	f.asked = r
	return &pb.SetLogLevelResponse{Before: "info"}, f.failure
}

func (f *fake) AddNeed(_ context.Context, r *pb.AddNeedRequest) (*pb.AddNeedResponse, error) {
	f.asked = r
	return &pb.AddNeedResponse{}, f.failure
}

func (f *fake) RemoveNeed(_ context.Context, r *pb.RemoveNeedRequest) (*pb.RemoveNeedResponse, error) {
	f.asked = r
	return &pb.RemoveNeedResponse{}, f.failure
}

func (f *fake) ListProcesses(_ context.Context, r *pb.ListProcessesRequest) (*pb.ListProcessesResponse, error) {
	if len(f.left) > 0 {
		now := f.left[0]
		f.left = f.left[1:]
		return &pb.ListProcessesResponse{Processes: now}, f.failure
	}
	var usage *pb.ProcessUsage
	if r.Usage {
		usage = &pb.ProcessUsage{CpuTime: durationpb.New(12340 * time.Millisecond), MemoryBytes: 3 << 29, Descriptors: 17, Threads: 9, Processes: 2}
	}
	processes, next := slice([]*pb.Process{
		{
			Instance: "adopted", Module: "allex_time", State: pb.ProcessState_PROCESS_STATE_READY, Place: pb.ProcessPlace_PROCESS_PLACE_OPEN,
			Origin: pb.ProcessOrigin_PROCESS_ORIGIN_ADOPTED, Pid: 4713, StartTime: before(50 * time.Hour),
			Ports: &pb.Ports{Http: 16000}, LogFile: "/var/lib/a/log/adopted.log",
		},
		{
			Instance: "by-hand", State: pb.ProcessState_PROCESS_STATE_READY, Place: pb.ProcessPlace_PROCESS_PLACE_UNNEEDED,
			Origin: pb.ProcessOrigin_PROCESS_ORIGIN_OUTSIDE, Pid: 99, StartTime: before(3 * time.Hour), Ports: &pb.Ports{Ws: 17000},
			StatusText: "3 rooms\x1b[31m",
		},
		{
			Instance: "crashes", Module: "allex_crashes", State: pb.ProcessState_PROCESS_STATE_ENDED, Origin: pb.ProcessOrigin_PROCESS_ORIGIN_STARTED,
			Failures: 7, CrashLoop: true, FailingSince: before(3 * time.Minute), BackoffUntil: before(-11500 * time.Millisecond),
			LastExit:   &pb.ExitStatus{Status: &pb.ExitStatus_Code{Code: 3}},
			LastReason: "it ended by itself (exit code 3)", LogFile: "/var/lib/a/log/crashes.log",
		},
		{
			Instance: "echo-1", Module: "allex_echo", State: pb.ProcessState_PROCESS_STATE_READY, Place: pb.ProcessPlace_PROCESS_PLACE_SERVED,
			Origin: pb.ProcessOrigin_PROCESS_ORIGIN_STARTED, Pid: 4711, StartTime: before(4 * time.Minute),
			Ports: &pb.Ports{Tcp: 15000, Http: 16001, Ws: 17001}, LogFile: "/var/lib/a/log/echo-1.log",
			Usage: usage,
		},
		{
			Instance: "held", Module: "allex_held", State: pb.ProcessState_PROCESS_STATE_STOPPING, Place: pb.ProcessPlace_PROCESS_PLACE_ELSEWHERE,
			Origin: pb.ProcessOrigin_PROCESS_ORIGIN_STARTED, Pid: 4714, StartTime: before(30 * time.Second), Held: true,
		},
		{
			Instance: "killed", Module: "allex_killed", State: pb.ProcessState_PROCESS_STATE_EMPTYING, Origin: pb.ProcessOrigin_PROCESS_ORIGIN_STARTED,
			LastExit: &pb.ExitStatus{Status: &pb.ExitStatus_Signal{Signal: "SIGKILL"}}, Failures: 1,
		},
		{
			Instance: "missed", Module: "allex_missed", State: pb.ProcessState_PROCESS_STATE_STARTING, Place: pb.ProcessPlace_PROCESS_PLACE_OPEN,
			Origin: pb.ProcessOrigin_PROCESS_ORIGIN_STARTED, Pid: 4715, StartTime: before(0),
			LastExit: &pb.ExitStatus{Status: &pb.ExitStatus_Unknown{Unknown: true}},
		},
		{
			Instance: "withdrawn", Module: "allex_withdrawn", State: pb.ProcessState_PROCESS_STATE_WITHDRAWN, Place: 77,
			Origin: pb.ProcessOrigin_PROCESS_ORIGIN_STARTED, Pid: 4716, StartTime: before(-time.Second), Reason: "not well: it answered 503",
		},
	}, r.PageToken)
	return &pb.ListProcessesResponse{Processes: processes, NextPageToken: next}, f.failure
}

// echo is the process of the calls about one instance.
func echo(state pb.ProcessState, instance string) *pb.Process {
	return &pb.Process{
		Instance: instance, Module: "allex_echo", State: state, Place: pb.ProcessPlace_PROCESS_PLACE_SERVED,
		Origin: pb.ProcessOrigin_PROCESS_ORIGIN_STARTED, Pid: 4711, StartTime: before(4 * time.Minute),
		Ports: &pb.Ports{Tcp: 15000, Http: 16001, Ws: 17001}, LogFile: "/var/lib/a/log/echo.log",
	}
}

func (f *fake) GetProcess(_ context.Context, r *pb.GetProcessRequest) (*pb.GetProcessResponse, error) {
	return &pb.GetProcessResponse{Process: echo(pb.ProcessState_PROCESS_STATE_READY, r.Instance)}, f.failure
}

func (f *fake) RegisterProcess(_ context.Context, r *pb.RegisterProcessRequest) (*pb.RegisterProcessResponse, error) {
	f.asked = r
	return &pb.RegisterProcessResponse{Process: &pb.Process{
		Instance: r.Instance, Module: r.Module, State: pb.ProcessState_PROCESS_STATE_READY, Place: pb.ProcessPlace_PROCESS_PLACE_OPEN,
		Origin: pb.ProcessOrigin_PROCESS_ORIGIN_OUTSIDE, Pid: r.Pid, StartTime: before(time.Minute), Ports: r.Ports, StatusText: r.StatusText,
	}}, f.failure
}

func (f *fake) ReportDown(_ context.Context, r *pb.ReportDownRequest) (*pb.ReportDownResponse, error) {
	f.asked = r
	return &pb.ReportDownResponse{Process: echo(pb.ProcessState_PROCESS_STATE_STOPPING, r.Instance)}, f.failure
}

func (f *fake) StopProcess(_ context.Context, r *pb.StopProcessRequest) (*pb.StopProcessResponse, error) {
	f.asked = r
	p := echo(pb.ProcessState_PROCESS_STATE_STOPPING, r.Instance)
	p.Held = true
	return &pb.StopProcessResponse{Process: p}, f.failure
}

func (f *fake) StartProcess(_ context.Context, r *pb.StartProcessRequest) (*pb.StartProcessResponse, error) {
	f.asked = r
	return &pb.StartProcessResponse{Process: &pb.Process{Instance: r.Instance, Module: "allex_echo", State: pb.ProcessState_PROCESS_STATE_ENDED}}, f.failure
}

func (f *fake) RestartProcess(_ context.Context, r *pb.RestartProcessRequest) (*pb.RestartProcessResponse, error) {
	f.asked = r
	return &pb.RestartProcessResponse{Process: echo(pb.ProcessState_PROCESS_STATE_STOPPING, r.Instance)}, f.failure
}

func (f *fake) TailLogs(r *pb.TailLogsRequest, stream grpc.ServerStreamingServer[pb.TailLogsResponse]) error {
	f.asked = r
	for _, piece := range []*pb.TailLogsResponse{
		{Position: 4096, Missing: 96, Data: []byte("the first li")},
		{Position: 4108, Data: []byte("ne\nthe second\n")},
	} {
		if err := stream.Send(piece); err != nil {
			return err
		}
	}
	return f.failure
}

func (f *fake) SignalProcess(_ context.Context, r *pb.SignalProcessRequest) (*pb.SignalProcessResponse, error) {
	f.asked = r
	return &pb.SignalProcessResponse{}, f.failure
}
