//go:build unix

package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/allexgo/machine-agent/agent"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/lan/table"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// TestMain plays a role instead if it is told to: callers of other users, and
// with other fates, are processes of their own.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	goleak.VerifyTestMain(m)
}

var _ Agent = (*agent.Agent)(nil)

// socketDirectory is a directory that every user can reach, with a short path.
func socketDirectory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ma")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// running is a server that serves.
type running struct {
	*Server
	socket string
	log    *bytes.Buffer // safe to read after stop
	stop   func() error  // may be called twice
}

// serve starts a server for a; the test's end stops it.
func serve(t testing.TB, a Agent, uid int) *running {
	t.Helper()
	r := &running{socket: filepath.Join(socketDirectory(t), "socket"), log: new(bytes.Buffer)}
	upgrader, _ := a.(Upgrader)
	r.Server = New(Config{Socket: r.socket, Agent: a, Upgrader: upgrader, AgentUID: uid,
		Logger: hclog.New(&hclog.LoggerOptions{Output: r.log, Level: hclog.Info})})
	l, err := Listen(r.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, l) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

// dial connects to a socket; the test's end hangs up.
func dial(t testing.TB, socket string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCallsReachTheAgent(t *testing.T) {
	m := newMemory()
	c := dial(t, serve(t, m, os.Getuid()).socket)
	processes, needs := pb.NewProcessServiceClient(c), pb.NewNeedServiceClient(c)
	ctx := t.Context()

	for name, call := range map[string]func() error{
		"Stop mine": func() error {
			_, err := processes.StopProcess(ctx, &pb.StopProcessRequest{Instance: "mine"})
			return err
		},
		"Start mine": func() error {
			_, err := processes.StartProcess(ctx, &pb.StartProcessRequest{Instance: "mine"})
			return err
		},
		"Restart mine": func() error {
			_, err := processes.RestartProcess(ctx, &pb.RestartProcessRequest{Instance: "mine"})
			return err
		},
		"ReportDown mine": func() error { _, err := processes.ReportDown(ctx, &pb.ReportDownRequest{Instance: "mine"}); return err },
		"Signal SIGHUP mine": func() error {
			_, err := processes.SignalProcess(ctx, &pb.SignalProcessRequest{Instance: "mine", Signal: "SIGHUP"})
			return err
		},
		"RemoveNeed mine": func() error { _, err := needs.RemoveNeed(ctx, &pb.RemoveNeedRequest{Instance: "mine"}); return err },
	} {
		m.called = nil
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff([]string{name}, m.called); diff != "" {
			t.Errorf("the agent was called with (-want +got)\n%s", diff)
		}
	}
}

func TestGetProcess(t *testing.T) {
	c := pb.NewProcessServiceClient(dial(t, serve(t, newMemory(), os.Getuid()).socket))
	got, err := c.GetProcess(t.Context(), &pb.GetProcessRequest{Instance: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	want := &pb.GetProcessResponse{Process: &pb.Process{
		Instance: "mine", Module: "echo",
		State:  pb.ProcessState_PROCESS_STATE_READY,
		Place:  pb.ProcessPlace_PROCESS_PLACE_SERVED,
		Origin: pb.ProcessOrigin_PROCESS_ORIGIN_STARTED,
		Pid:    100, StartTime: timeMessage(began),
		Ports:   &pb.Ports{Tcp: 15000, Http: 16000, Ws: 17000},
		LogFile: "/var/log/mine.log",
	}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// What processes use is measured if the request asks for it, and of those that are
// told only.
func TestUsage(t *testing.T) {
	c := pb.NewProcessServiceClient(dial(t, serve(t, newMemory(), os.Getuid()).socket))
	want := &pb.ProcessUsage{CpuTime: durationpb.New(1500 * time.Millisecond), MemoryBytes: 1 << 32, Descriptors: 7, Threads: 5, Processes: 2}
	got, err := c.GetProcess(t.Context(), &pb.GetProcessRequest{Instance: "mine", Usage: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.GetProcess().GetUsage(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	for _, asked := range []bool{false, true} {
		all, err := c.ListProcesses(t.Context(), &pb.ListProcessesRequest{Usage: asked})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all.GetProcesses() {
			if has := p.GetUsage() != nil; has != (asked && p.GetInstance() == "mine") {
				t.Errorf("asked %v: %v", asked, p)
			}
		}
	}
}

func TestRegisterProcess(t *testing.T) {
	m := newMemory()
	c := pb.NewProcessServiceClient(dial(t, serve(t, m, os.Getuid()).socket))
	request := &pb.RegisterProcessRequest{Instance: "mine", Pid: 7, Module: "echo",
		Ports: &pb.Ports{Http: 8080}, StatusText: "up"}
	answer, err := c.RegisterProcess(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.GetProcess().GetStatusText(); got != "up" {
		t.Errorf("status text is %q", got)
	}
	want := agent.Registration{Instance: "mine", PID: 7, Module: "echo", Ports: table.Ports{HTTP: 8080}, StatusText: "up",
		CallerPID: os.Getpid(), CallerUID: os.Getuid(), Privileged: true}
	if diff := cmp.Diff(want, m.last()); diff != "" {
		t.Errorf("the agent was told (-want +got)\n%s", diff)
	}
}

func TestAddNeed(t *testing.T) {
	m := newMemory()
	c := pb.NewNeedServiceClient(dial(t, serve(t, m, os.Getuid()).socket))
	hash, err := structpb.NewStruct(map[string]any{"n": 1, "s": "<&>", "deep": map[string]any{"list": []any{true, nil}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddNeed(t.Context(), &pb.AddNeedRequest{Need: &pb.Need{Instance: "a", Module: "m",
		PropertyHash: hash, FixedPorts: &pb.Ports{Tcp: 1}, IpAddress: "10.0.0.0/8"}}); err != nil {
		t.Fatal(err)
	}
	got := m.added[0]
	if back := structMessage(got.PropertyHash); !cmp.Equal(hash, back, protocmp.Transform()) {
		t.Errorf("property hash came as %s", got.PropertyHash)
	}
	got.PropertyHash = nil
	want := table.Need{InstanceName: "a", ModuleName: "m", IPAddress: "10.0.0.0/8", Ports: table.Ports{TCP: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Lists longer than a page come whole and in order over the socket.
func TestLongLists(t *testing.T) {
	m := newMemory()
	m.needs = nil
	var want []string
	for i := range 2345 {
		name := fmt.Sprintf("instance-%04d", i)
		want = append(want, name)
		m.ports = append(m.ports, agent.PortLease{PID: i, Lease: port.Lease{
			Protocol: port.HTTP, Port: 7000 + i*3, Instance: name, State: port.StateListening}})
		m.needs = append(m.needs, agent.NeedDecision{Need: table.Need{InstanceName: name}, Decision: agent.DecisionHeld})
	}
	c := dial(t, serve(t, m, os.Getuid()).socket)
	var ports, needs []string
	for token, more := "", true; more; more = token != "" {
		answer, err := pb.NewPortServiceClient(c).ListPorts(t.Context(), &pb.ListPortsRequest{PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range answer.GetLeases() {
			ports = append(ports, l.GetInstance())
		}
		token = answer.GetNextPageToken()
	}
	for token, more := "", true; more; more = token != "" {
		answer, err := pb.NewNeedServiceClient(c).ListNeeds(t.Context(), &pb.ListNeedsRequest{PageToken: token, PageSize: 700})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range answer.GetNeeds() {
			needs = append(needs, n.GetNeed().GetInstance())
		}
		token = answer.GetNextPageToken()
	}
	if !slices.Equal(ports, want) || !slices.Equal(needs, want) {
		t.Errorf("%d ports and %d needs came, want %d each", len(ports), len(needs), len(want))
	}

	answer, err := pb.NewPortServiceClient(c).ListPorts(t.Context(), &pb.ListPortsRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	first := &pb.PortLease{Protocol: pb.Protocol_PROTOCOL_HTTP, Port: 7000, Instance: want[0], State: pb.PortState_PORT_STATE_LISTENING}
	if diff := cmp.Diff([]*pb.PortLease{first}, answer.GetLeases(), protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// However many modules there are, the answer to a reload stays small.
func TestReloadOfManyModules(t *testing.T) {
	m := newMemory()
	for n := range pageLimit + 5 {
		m.change.Unchanged = append(m.change.Unchanged, fmt.Sprintf("module-%05d", n))
	}
	answer, err := pb.NewAgentServiceClient(dial(t, serve(t, m, os.Getuid()).socket)).Reload(t.Context(), &pb.ReloadRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m.change.Unchanged[:pageLimit], answer.ModulesUnchanged); diff != "" || answer.ModulesUnchangedCount != pageLimit+5 {
		t.Errorf("%d unchanged; -want +got:\n%s", answer.ModulesUnchangedCount, diff)
	}
}

func TestReflectionListsEverything(t *testing.T) {
	c := dial(t, serve(t, newMemory(), os.Getuid()).socket)
	stream, err := reflectionv1.NewServerReflectionClient(c).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range answer.GetListServicesResponse().GetService() {
		got = append(got, s.GetName())
	}
	want := []string{
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
		"machineagent.v1.AgentService", "machineagent.v1.DirectoryService", "machineagent.v1.NeedService",
		"machineagent.v1.PortService", "machineagent.v1.ProcessService",
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestHealth(t *testing.T) {
	m := newMemory()
	c := grpc_health_v1.NewHealthClient(dial(t, serve(t, m, os.Getuid()).socket))
	check := func(service string) string {
		answer, err := c.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			return status.Code(err).String()
		}
		return answer.GetStatus().String()
	}
	for _, step := range []struct {
		connected     bool
		service, want string
	}{
		{false, "", "SERVING"},
		{false, linkHealth, "NOT_SERVING"},
		{true, linkHealth, "SERVING"},
		{true, "machineagent.v1.ProcessService", "SERVING"},
		{true, "machineagent.v1.Nothing", "NotFound"},
	} {
		m.connect(step.connected)
		if got := check(step.service); got != step.want {
			t.Errorf("connected %v: health of %q is %s, want %s", step.connected, step.service, got, step.want)
		}
	}
	list, err := c.List(t.Context(), &grpc_health_v1.HealthListRequest{})
	if err != nil || len(list.GetStatuses()) != 7 {
		t.Errorf("List: %v, %v", list, err)
	}
}

// A health watch tells of each change, and of the server's end, which it does not
// hold up.
func TestHealthWatch(t *testing.T) {
	m := newMemory()
	s := serve(t, m, os.Getuid())
	watch, err := grpc_health_v1.NewHealthClient(dial(t, s.socket)).
		Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: linkHealth})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want servingStatus) {
		t.Helper()
		if got, err := watch.Recv(); err != nil || got.GetStatus() != want {
			t.Fatalf("got %v, %v; want %v", got, err, want)
		}
	}
	expect(notServing)
	m.connect(true)
	expect(serving)

	start := time.Now()
	s.stop()
	if d := time.Since(start); d >= stopLimit {
		t.Errorf("the end took %s", d)
	}
	expect(notServing)
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the watch ended with %v", err)
	}
}

func TestStopLetsCallsFinish(t *testing.T) {
	m := newMemory()
	m.hold, m.holding = make(chan struct{}), make(chan struct{})
	s := serve(t, m, os.Getuid())
	c := pb.NewAgentServiceClient(dial(t, s.socket))
	called := make(chan error, 1)
	go func() {
		_, err := c.Shutdown(context.Background(), &pb.ShutdownRequest{})
		called <- err
	}()
	<-m.holding
	stopped := make(chan struct{})
	go func() { defer close(stopped); s.stop() }()
	<-s.leaving
	close(m.hold)
	if err := <-called; err != nil {
		t.Errorf("a call in flight ended with %v", err)
	}
	<-stopped
	if _, err := os.Lstat(s.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// What does not end by itself is cut off: a call whose agent does not answer, a
// reflection stream left open, a connection on which nothing is ever said.
func TestStopIsBounded(t *testing.T) {
	m := newMemory()
	m.hold, m.holding = make(chan struct{}), make(chan struct{})
	s := serve(t, m, os.Getuid())
	s.grace = 50 * time.Millisecond
	c := dial(t, s.socket)
	called := make(chan error, 1)
	go func() {
		_, err := pb.NewAgentServiceClient(c).Shutdown(context.Background(), &pb.ShutdownRequest{})
		called <- err
	}()
	<-m.holding
	stream, err := reflectionv1.NewServerReflectionClient(c).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := silent.Read(make([]byte, 1)); err != nil { // the server's settings: it is inside
		t.Fatal(err)
	}

	start := time.Now()
	s.stop()
	if d := time.Since(start); d > stopLimit {
		t.Errorf("the end took %s", d)
	}
	if err := <-called; status.Code(err) != codes.Unavailable {
		t.Errorf("the call ended with %v", err)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream goes on")
	}
	if _, err := io.Copy(io.Discard, silent); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the silent connection ended with %v", err)
	}
}

func TestServeTellsOfAFailedListener(t *testing.T) {
	socket := filepath.Join(socketDirectory(t), "socket")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*listener).UnixListener.Close()
	s := New(Config{Socket: socket, Agent: newMemory(), Logger: hclog.NewNullLogger()})
	if err := s.Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve ended with %v", err)
	}
}

// An operator's act is logged with who did it; what children do all the time is
// not.
func TestLog(t *testing.T) {
	m := newMemory()
	s := serve(t, m, os.Getuid())
	c := pb.NewProcessServiceClient(dial(t, s.socket))
	c.RegisterProcess(t.Context(), &pb.RegisterProcessRequest{Instance: "mine"})
	c.ListProcesses(t.Context(), &pb.ListProcessesRequest{})
	c.StopProcess(t.Context(), &pb.StopProcessRequest{Instance: "mine"})
	s.stop()
	log := s.log.String()
	if strings.Contains(log, "RegisterProcess") || strings.Contains(log, "ListProcesses") {
		t.Errorf("the log tells of everyday calls:\n%s", log)
	}
	if !strings.Contains(log, "StopProcess instance=mine") {
		t.Errorf("the log does not tell who stopped what:\n%s", log)
	}
}
