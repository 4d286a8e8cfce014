//go:build unix

package server

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/allexgo/machine-agent/agent"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// attempts are calls with what is special about them; the outcome of each depends
// on who makes it.
var attempts = map[string]func(ctx context.Context, c *grpc.ClientConn) error{
	"register itself": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewProcessServiceClient(c).RegisterProcess(ctx, &pb.RegisterProcessRequest{Instance: "mine", Pid: int32(os.Getpid())})
		return err
	},
	"register another pid": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewProcessServiceClient(c).RegisterProcess(ctx, &pb.RegisterProcessRequest{Instance: "mine", Pid: 1})
		return err
	},
	"register another name": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewProcessServiceClient(c).RegisterProcess(ctx, &pb.RegisterProcessRequest{Instance: "other"})
		return err
	},
	"report itself": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewProcessServiceClient(c).ReportDown(ctx, &pb.ReportDownRequest{Instance: "mine"})
		return err
	},
	"report another": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewProcessServiceClient(c).ReportDown(ctx, &pb.ReportDownRequest{Instance: "other"})
		return err
	},
	"get": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewProcessServiceClient(c).GetProcess(ctx, &pb.GetProcessRequest{Instance: "other"})
		return err
	},
	"list": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewProcessServiceClient(c).ListProcesses(ctx, &pb.ListProcessesRequest{})
		return err
	},
	"stop": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewProcessServiceClient(c).StopProcess(ctx, &pb.StopProcessRequest{Instance: "mine"})
		return err
	},
	"start": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewProcessServiceClient(c).StartProcess(ctx, &pb.StartProcessRequest{Instance: "mine"})
		return err
	},
	"restart": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewProcessServiceClient(c).RestartProcess(ctx, &pb.RestartProcessRequest{Instance: "mine"})
		return err
	},
	"signal": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewProcessServiceClient(c).SignalProcess(ctx, &pb.SignalProcessRequest{Instance: "mine", Signal: "SIGHUP"})
		return err
	},
	"read its log": func(ctx context.Context, c *grpc.ClientConn) error { return readLog(ctx, c, "mine") },
	"read a log":   func(ctx context.Context, c *grpc.ClientConn) error { return readLog(ctx, c, "other") },
	"ports": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewPortServiceClient(c).ListPorts(ctx, &pb.ListPortsRequest{})
		return err
	},
	"needs": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewNeedServiceClient(c).ListNeeds(ctx, &pb.ListNeedsRequest{})
		return err
	},
	"see property hashes": func(ctx context.Context, c *grpc.ClientConn) error {
		answer, err := pb.NewNeedServiceClient(c).ListNeeds(ctx, &pb.ListNeedsRequest{})
		if err == nil && answer.GetNeeds()[0].GetNeed().GetPropertyHash() == nil {
			return fmt.Errorf("hidden")
		}
		return err
	},
	"add a need": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewNeedServiceClient(c).AddNeed(ctx, &pb.AddNeedRequest{Need: &pb.Need{Instance: "new", Module: "echo"}})
		return err
	},
	"remove a need": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewNeedServiceClient(c).RemoveNeed(ctx, &pb.RemoveNeedRequest{Instance: "mine"})
		return err
	},
	"status": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewAgentServiceClient(c).GetStatus(ctx, &pb.GetStatusRequest{})
		return err
	},
	"drain": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewAgentServiceClient(c).Drain(ctx, &pb.DrainRequest{})
		return err
	},
	"resume": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewAgentServiceClient(c).Resume(ctx, &pb.ResumeRequest{})
		return err
	},
	"reserve a port": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewPortServiceClient(c).ReservePort(ctx, &pb.ReservePortRequest{Protocol: pb.Protocol_PROTOCOL_TCP})
		return err
	},
	"reserve a port for another": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewPortServiceClient(c).ReservePort(ctx, &pb.ReservePortRequest{Protocol: pb.Protocol_PROTOCOL_TCP, Pid: 1})
		return err
	},
	"reserve for an instance": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewPortServiceClient(c).ReservePort(ctx, &pb.ReservePortRequest{Protocol: pb.Protocol_PROTOCOL_TCP, Instance: "theirs"})
		return err
	},
	"release a port": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewPortServiceClient(c).ReleasePort(ctx, &pb.ReleasePortRequest{Port: 80})
		return err
	},
	"check a port": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewPortServiceClient(c).CheckPort(ctx, &pb.CheckPortRequest{Port: 80})
		return err
	},
	"find": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewDirectoryServiceClient(c).FindService(ctx, &pb.FindServiceRequest{By: &pb.FindServiceRequest_Instance{Instance: "mine"}})
		return err
	},
	"resolve": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewDirectoryServiceClient(c).ResolveAddress(ctx, &pb.ResolveAddressRequest{IpAddress: "10.0.0.7", Port: 80})
		return err
	},
	"reload": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewAgentServiceClient(c).Reload(ctx, &pb.ReloadRequest{})
		return err
	},
	"log level": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewAgentServiceClient(c).SetLogLevel(ctx, &pb.SetLogLevelRequest{Level: "debug"})
		return err
	},
	"watch": func(ctx context.Context, c *grpc.ClientConn) error {
		w, err := pb.NewProcessServiceClient(c).WatchProcesses(ctx, &pb.WatchProcessesRequest{})
		if err == nil {
			_, err = w.Recv()
		}
		return err
	},
	"watch events": func(ctx context.Context, c *grpc.ClientConn) error {
		w, err := pb.NewAgentServiceClient(c).WatchEvents(ctx, &pb.WatchEventsRequest{})
		if err == nil {
			_, err = w.Recv()
		}
		return err
	},
	"see commands": func(ctx context.Context, c *grpc.ClientConn) error {
		answer, err := pb.NewAgentServiceClient(c).ListModules(ctx, &pb.ListModulesRequest{})
		if err == nil && answer.GetModules()[0].GetCommand() == nil {
			return fmt.Errorf("hidden")
		}
		return err
	},
	"shutdown": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := pb.NewAgentServiceClient(c).Shutdown(ctx, &pb.ShutdownRequest{})
		return err
	},
	"health": func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := grpc_health_v1.NewHealthClient(c).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		return err
	},
	"reflection": func(ctx context.Context, c *grpc.ClientConn) error {
		stream, err := reflectionv1.NewServerReflectionClient(c).ServerReflectionInfo(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&reflectionv1.ServerReflectionRequest{
			MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	},
}

func readLog(ctx context.Context, c *grpc.ClientConn, instance string) error {
	stream, err := pb.NewProcessServiceClient(c).TailLogs(ctx, &pb.TailLogsRequest{Instance: instance})
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

// who may succeed in an attempt.
type allowed struct{ anyone, child, operator bool }

var permissions = map[string]allowed{
	"register itself":            {true, true, true},
	"register another pid":       {false, false, true},
	"register another name":      {true, false, true}, // whether anyone may: the agent decides, and memory lets him
	"report itself":              {false, true, true},
	"report another":             {false, false, true},
	"get":                        {true, true, true},
	"list":                       {true, true, true},
	"stop":                       {false, false, true},
	"start":                      {false, false, true},
	"restart":                    {false, false, true},
	"signal":                     {false, false, true},
	"read its log":               {false, true, true},
	"read a log":                 {false, false, true},
	"ports":                      {true, true, true},
	"needs":                      {true, true, true},
	"see property hashes":        {false, true, true},
	"add a need":                 {false, true, true},
	"remove a need":              {false, false, true},
	"status":                     {true, true, true},
	"drain":                      {false, false, true},
	"resume":                     {false, false, true},
	"reserve a port":             {false, true, true},
	"reserve a port for another": {false, false, true},
	"reserve for an instance":    {false, false, true},
	"release a port":             {false, true, true},
	"check a port":               {true, true, true},
	"find":                       {true, true, true},
	"resolve":                    {true, true, true},
	"reload":                     {false, false, true},
	"log level":                  {false, false, true},
	"watch":                      {true, true, true},
	"watch events":               {true, true, true},
	"see commands":               {false, false, true},
	"shutdown":                   {false, false, true},
	"health":                     {true, true, true},
	"reflection":                 {true, true, true},
}

// callAs makes every attempt in a process of the user uid that belongs to owner.
func callAs(t *testing.T, m *memory, socket string, uid int, owner agent.Owner) map[string]outcome {
	t.Helper()
	c := roleCommand(t, "caller", socket, uid)
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stdout strings.Builder
	c.Stdout = &stdout
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	m.own(c.Process.Pid, owner)
	fmt.Fprintln(stdin, "go")
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	var all map[string]outcome
	if err := json.Unmarshal([]byte(stdout.String()), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// Real processes of real users make every call. Root tries it as several users;
// who is not root, as the one that there is.
func TestRights(t *testing.T) {
	agentUID, users := os.Getuid(), []int{os.Getuid()}
	if agentUID == 0 {
		agentUID, users = agentsUID, []int{0, agentsUID, otherUID}
	}
	owners := map[string]agent.Owner{
		"of nobody":         {},
		"child":             {Instance: "mine"},
		"child as operator": {Instance: "mine", Operator: true},
	}
	for _, uid := range users {
		for kind, owner := range owners {
			t.Run(fmt.Sprintf("%s uid %d", kind, uid), func(t *testing.T) {
				m := newMemory()
				s := serve(t, m, agentUID)
				all := callAs(t, m, s.socket, uid, owner)
				for name, p := range permissions {
					class, may := "operator", p.operator
					switch {
					case owner.Operator:
					case owner.Instance != "":
						class, may = "child", p.child
					case uid != 0 && uid != agentUID:
						class, may = "anyone", p.anyone
					}
					checkOutcome(t, class+" tries: "+name, all[name], may, uid, owner)
				}
			})
		}
	}
}

func checkOutcome(t *testing.T, what string, got outcome, may bool, uid int, owner agent.Owner) {
	t.Helper()
	if may {
		if got.Code != codes.OK {
			t.Errorf("%s: %v: %s", what, got.Code, got.Text)
		}
		return
	}
	if got.Text == "hidden" {
		return
	}
	metadata := map[string]string{"uid": strconv.Itoa(uid)}
	if owner.Instance != "" {
		metadata["instance"] = owner.Instance
	}
	want := outcome{Code: codes.PermissionDenied, Text: got.Text, Reason: "CALLER_NOT_ALLOWED", Metadata: metadata}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got)\n%s", what, diff)
	}
	helps := func(cure string) bool { return strings.Contains(got.Text, cure) }
	if !slices.ContainsFunc([]string{"call as", `"operator": true`, "leave instance out", "leave pid out"}, helps) {
		t.Errorf("%s: the error does not say what would help: %s", what, got.Text)
	}
}

// A child's request need not say who it is, and it may name any process of its
// tree.
func TestChildMeansItself(t *testing.T) {
	m := newMemory()
	m.own(os.Getpid(), agent.Owner{Instance: "mine"})
	m.own(os.Getppid(), agent.Owner{Instance: "mine"})
	c := pb.NewProcessServiceClient(dial(t, serve(t, m, os.Getuid()).socket))
	if _, err := c.RegisterProcess(t.Context(), &pb.RegisterProcessRequest{Pid: int32(os.Getppid())}); err != nil {
		t.Fatal(err)
	}
	want := agent.Registration{PID: os.Getppid(), CallerPID: os.Getpid(), CallerUID: os.Getuid(), Caller: "mine"}
	if diff := cmp.Diff(want, m.last()); diff != "" {
		t.Errorf("the agent was told (-want +got)\n%s", diff)
	}
	if _, err := c.ReportDown(t.Context(), &pb.ReportDownRequest{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ReportDown mine"}, m.called); diff != "" {
		t.Errorf("the agent was called with (-want +got)\n%s", diff)
	}
}

// Every call that can be made has its row, and no row is for nothing.
func TestRightsTableIsComplete(t *testing.T) {
	s := serve(t, newMemory(), os.Getuid())
	var methods []string
	for service, info := range s.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			methods = append(methods, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(methods)
	if diff := cmp.Diff(methods, slices.Sorted(maps.Keys(rights))); diff != "" {
		t.Errorf("methods and rights (-methods +rights)\n%s", diff)
	}
	for method, r := range rights {
		if r[operator] != full || r[anyone] > r[child] || r[child] > r[operator] {
			t.Errorf("%s: %v is no ladder", method, r)
		}
	}
}

// A reserved port is that of the process or the instance that is named, else of
// the instance that asks, which an operator may be part of, too.
func TestWhoseReservedPort(t *testing.T) {
	me := int32(os.Getpid())
	for _, test := range []struct {
		owner    agent.Owner
		request  *pb.ReservePortRequest
		instance string
		pid      int32
	}{
		{agent.Owner{}, &pb.ReservePortRequest{}, "", me},
		{agent.Owner{}, &pb.ReservePortRequest{Pid: 1}, "", 1},
		{agent.Owner{}, &pb.ReservePortRequest{Instance: "mine"}, "mine", 0},
		{agent.Owner{Instance: "mine"}, &pb.ReservePortRequest{}, "mine", 0},
		{agent.Owner{Instance: "mine"}, &pb.ReservePortRequest{Instance: "mine"}, "mine", 0},
		{agent.Owner{Instance: "mine", Operator: true}, &pb.ReservePortRequest{}, "mine", 0},
		{agent.Owner{Instance: "mine", Operator: true}, &pb.ReservePortRequest{Pid: 1}, "", 1},
		{agent.Owner{Instance: "mine", Operator: true}, &pb.ReservePortRequest{Instance: "theirs"}, "theirs", 0},
	} {
		m := newMemory()
		m.own(os.Getpid(), test.owner)
		test.request.Protocol = pb.Protocol_PROTOCOL_HTTP
		answer, err := pb.NewPortServiceClient(dial(t, serve(t, m, os.Getuid()).socket)).ReservePort(t.Context(), test.request)
		if err != nil {
			t.Errorf("%+v asks for %v: %v", test.owner, test.request, err)
		} else if l := answer.Lease; l.Instance != test.instance || l.Pid != test.pid {
			t.Errorf("%+v asks for %v: it is that of %q, pid %d", test.owner, test.request, l.Instance, l.Pid)
		}
	}
	c := pb.NewPortServiceClient(dial(t, serve(t, newMemory(), os.Getuid()).socket))
	_, err := c.ReservePort(t.Context(), &pb.ReservePortRequest{Protocol: pb.Protocol_PROTOCOL_HTTP, Pid: 1, Instance: "mine"})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("of a process and an instance: %v", err)
	}
}
