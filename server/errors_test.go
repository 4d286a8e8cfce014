//go:build unix

package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/allexgo/machine-agent/agent"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func TestErrorsOnTheWire(t *testing.T) {
	info := func(r agent.Reason, metadata map[string]string) proto.Message {
		return &errdetails.ErrorInfo{Reason: string(r), Domain: "machineagent", Metadata: metadata}
	}
	named := map[string]string{"instance": "web"}
	soon := &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)}
	for _, test := range []struct {
		err     *agent.Error
		code    codes.Code
		details []proto.Message
	}{
		{&agent.Error{Kind: agent.Invalid, Field: "signal", Message: "signal: what is SIGX?"},
			codes.InvalidArgument, []proto.Message{&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
				{Field: "signal", Description: "what is SIGX?"}}}}},
		{&agent.Error{Kind: agent.NotFound, Reason: agent.InstanceNotFound, Message: "no web", Metadata: named},
			codes.NotFound, []proto.Message{info(agent.InstanceNotFound, named),
				&errdetails.ResourceInfo{ResourceType: "instance", ResourceName: "web", Description: "no web"}}},
		{&agent.Error{Kind: agent.NotFound, Reason: agent.PIDNotFound, Message: "no 7", Metadata: map[string]string{"pid": "7"}},
			codes.NotFound, []proto.Message{info(agent.PIDNotFound, map[string]string{"pid": "7"}),
				&errdetails.ResourceInfo{ResourceType: "pid", ResourceName: "7", Description: "no 7"}}},
		{&agent.Error{Kind: agent.Exists, Reason: agent.InstanceTaken, Message: "taken", Metadata: named},
			codes.AlreadyExists, []proto.Message{info(agent.InstanceTaken, named),
				&errdetails.ResourceInfo{ResourceType: "instance", ResourceName: "web", Description: "taken"}}},
		{&agent.Error{Kind: agent.Denied, Reason: agent.CallerNotAllowed, Message: "no"},
			codes.PermissionDenied, []proto.Message{info(agent.CallerNotAllowed, nil)}},
		{&agent.Error{Kind: agent.WrongState, Reason: agent.OutsideProcess, Message: "outside", Metadata: named},
			codes.FailedPrecondition, []proto.Message{info(agent.OutsideProcess, named),
				&errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
					{Type: "OUTSIDE_PROCESS", Subject: "web", Description: "outside"}}}}},
		{&agent.Error{Kind: agent.Exhausted, Message: "full"}, codes.ResourceExhausted, []proto.Message{soon}},
		{&agent.Error{Kind: agent.Unavailable, Reason: agent.NoLANManager, Message: "no link"},
			codes.Unavailable, []proto.Message{info(agent.NoLANManager, nil), soon}},
		{&agent.Error{Message: "of no kind"}, codes.Unknown, nil},
	} {
		m := newMemory()
		m.err = fmt.Errorf("wrapped: %w", test.err)
		c := pb.NewAgentServiceClient(dial(t, serve(t, m, os.Getuid()).socket))
		_, err := c.GetStatus(t.Context(), &pb.GetStatusRequest{})
		st := status.Convert(err)
		if st.Code() != test.code || st.Message() != test.err.Message {
			t.Errorf("%v came as %v", test.err, err)
		}
		var details []proto.Message
		for _, d := range st.Details() {
			details = append(details, d.(proto.Message))
		}
		if diff := cmp.Diff(test.details, details, protocmp.Transform()); diff != "" {
			t.Errorf("details of %v (-want +got)\n%s", test.err, diff)
		}
	}
}

// Every reason of the agent is one of the API's.
func TestReasonsAreInTheAPI(t *testing.T) {
	for _, r := range []agent.Reason{agent.InstanceNotFound, agent.PIDNotFound, agent.InstanceTaken, agent.CallerNotAllowed,
		agent.PortNotListening, agent.OutsideProcess, agent.NoLANManager, agent.LANManagerRefused, agent.NotRunning, agent.ShuttingDown} {
		if _, ok := pb.ErrorReason_value["ERROR_REASON_"+string(r)]; !ok {
			t.Errorf("%s is not in error.proto", r)
		}
	}
}

// What the caller can do nothing about stays in the log, under an id.
func TestInternalErrors(t *testing.T) {
	for name, cause := range map[string]error{"error": errors.New("the secret cause"), "panic": nil} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			m.err = cause
			var a Agent = m
			if cause == nil {
				a = panicking{m}
			}
			s := serve(t, a, os.Getuid())
			_, err := pb.NewAgentServiceClient(dial(t, s.socket)).GetStatus(t.Context(), &pb.GetStatusRequest{})
			text := status.Convert(err).Message()
			id := regexp.MustCompile(`internal error ([A-Z0-9]{12});`).FindStringSubmatch(text)
			if status.Code(err) != codes.Internal || id == nil || strings.Contains(text, "secret") {
				t.Fatalf("came as %v", err)
			}
			s.stop()
			if log := s.log.String(); !strings.Contains(log, id[1]) || !strings.Contains(log, "the secret cause") {
				t.Errorf("the log does not have it:\n%s", log)
			}
		})
	}
}

type panicking struct{ *memory }

func (panicking) Status(context.Context) (agent.Status, error) { panic("the secret cause") }

func TestContextErrors(t *testing.T) {
	for cause, want := range map[error]codes.Code{
		context.Canceled:         codes.Canceled,
		context.DeadlineExceeded: codes.DeadlineExceeded,
	} {
		m := newMemory()
		m.err = fmt.Errorf("the loop: %w", cause)
		c := pb.NewAgentServiceClient(dial(t, serve(t, m, os.Getuid()).socket))
		if _, err := c.GetStatus(t.Context(), &pb.GetStatusRequest{}); status.Code(err) != want {
			t.Errorf("%v came as %v", cause, err)
		}
	}
}

// The agent sees a deadline even if the caller set none.
func TestDeadline(t *testing.T) {
	seen := make(chan time.Duration, 1)
	c := pb.NewAgentServiceClient(dial(t, serve(t, timed{newMemory(), seen}, os.Getuid()).socket))
	if _, err := c.GetStatus(context.Background(), &pb.GetStatusRequest{}); err != nil {
		t.Fatal(err)
	}
	if left := <-seen; left <= 0 || left > callLimit {
		t.Errorf("the agent had %s", left)
	}
	if _, err := c.Upgrade(context.Background(), &pb.UpgradeRequest{ReadyWithin: durationpb.New(readyLimit)}); err != nil {
		t.Fatal(err)
	}
	if left := <-seen; left <= readyLimit || left > upgradeLimit {
		t.Errorf("an upgrade whose check may take %s had %s", readyLimit, left)
	}
}

type timed struct {
	*memory
	seen chan time.Duration
}

func (a timed) Status(ctx context.Context) (agent.Status, error) {
	deadline, _ := ctx.Deadline()
	a.seen <- time.Until(deadline)
	return agent.Status{}, nil
}

func (a timed) Upgrade(ctx context.Context, _ string, _ time.Duration) (string, error) {
	deadline, _ := ctx.Deadline()
	a.seen <- time.Until(deadline)
	return "id", nil
}

func TestRequestsAreChecked(t *testing.T) {
	c := dial(t, serve(t, newMemory(), os.Getuid()).socket)
	processes, needs := pb.NewProcessServiceClient(c), pb.NewNeedServiceClient(c)
	long := strings.Repeat("x", 2000)
	for name, test := range map[string]struct {
		call   func(context.Context) error
		fields []string
	}{
		"register": {func(ctx context.Context) error {
			_, err := processes.RegisterProcess(ctx, &pb.RegisterProcessRequest{Module: long, Pid: -1, StatusText: long,
				Ports: &pb.Ports{Tcp: 70000, Http: 80, Ws: -1}})
			return err
		}, []string{"module", "status_text", "ports.tcp", "ports.ws", "pid", "instance"}},
		"report down": {func(ctx context.Context) error {
			_, err := processes.ReportDown(ctx, &pb.ReportDownRequest{Reason: long})
			return err
		}, []string{"instance", "reason"}},
		"get": {func(ctx context.Context) error {
			_, err := processes.GetProcess(ctx, &pb.GetProcessRequest{Instance: long})
			return err
		}, []string{"instance"}},
		"signal": {func(ctx context.Context) error {
			_, err := processes.SignalProcess(ctx, &pb.SignalProcessRequest{})
			return err
		}, []string{"instance", "signal"}},
		"list": {func(ctx context.Context) error {
			_, err := processes.ListProcesses(ctx, &pb.ListProcessesRequest{PageSize: -1, PageToken: "?"})
			return err
		}, []string{"page_size", "page_token"}},
		"no need": {func(ctx context.Context) error {
			_, err := needs.AddNeed(ctx, &pb.AddNeedRequest{})
			return err
		}, []string{"need.instance", "need.module"}},
		"need": {func(ctx context.Context) error {
			_, err := needs.AddNeed(ctx, &pb.AddNeedRequest{Need: &pb.Need{Instance: "a", Module: "m", IpAddress: "10.0.0.0/33",
				PropertyHash: &structpb.Struct{Fields: map[string]*structpb.Value{"n": structpb.NewNumberValue(math.Inf(1))}},
				FixedPorts:   &pb.Ports{Http: 65536}}})
			return err
		}, []string{"need.fixed_ports.http", "need.ip_address", "need.property_hash"}},
		"remove need": {func(ctx context.Context) error {
			_, err := needs.RemoveNeed(ctx, &pb.RemoveNeedRequest{})
			return err
		}, []string{"instance"}},
	} {
		err := test.call(t.Context())
		var fields []string
		for _, d := range status.Convert(err).Details() {
			for _, v := range d.(*errdetails.BadRequest).GetFieldViolations() {
				fields = append(fields, v.GetField())
			}
		}
		if diff := cmp.Diff(test.fields, fields); diff != "" || status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v (-want +got)\n%s", name, err, diff)
		}
	}
}

func TestOversizeRequest(t *testing.T) {
	m := newMemory()
	c := pb.NewProcessServiceClient(dial(t, serve(t, m, os.Getuid()).socket))
	_, err := c.RegisterProcess(t.Context(), &pb.RegisterProcessRequest{StatusText: strings.Repeat("x", requestLimit)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("came as %v", err)
	}
	if _, err := c.GetProcess(t.Context(), &pb.GetProcessRequest{Instance: "mine"}); err != nil {
		t.Errorf("the next call on the connection: %v", err)
	}
}
