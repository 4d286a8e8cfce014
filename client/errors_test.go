//go:build !windows

package client

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// What the agent says comes out typed at the other end of a real socket.
func TestErrors(t *testing.T) {
	info := func(reason string, metadata ...string) protoadapt.MessageV1 {
		i := &errdetails.ErrorInfo{Domain: "machineagent", Reason: reason}
		for n := 0; n < len(metadata); n += 2 {
			i.Metadata = map[string]string{metadata[n]: metadata[n+1]}
		}
		return i
	}
	for _, test := range []struct {
		name    string
		code    codes.Code
		message string
		details []protoadapt.MessageV1
		kind    error
		want    Error
	}{{
		"the message brings its cure", codes.NotFound,
		`there is no instance "x" on this machine; ListProcesses shows those that there are`,
		[]protoadapt.MessageV1{info("INSTANCE_NOT_FOUND", "instance", "x"), &errdetails.ResourceInfo{ResourceName: "x"}},
		ErrNotFound,
		Error{
			Message: `there is no instance "x" on this machine`, Cure: "ListProcesses shows those that there are",
			Reason: "INSTANCE_NOT_FOUND", Metadata: map[string]string{"instance": "x"},
		},
	}, {
		"the reason has a cure", codes.AlreadyExists, "pid 7 has that name",
		[]protoadapt.MessageV1{info("INSTANCE_TAKEN", "pid", "7")},
		ErrExists,
		Error{
			Message: "pid 7 has that name", Cure: "take another name, or end the process that has it",
			Reason: "INSTANCE_TAKEN", Metadata: map[string]string{"pid": "7"},
		},
	}, {
		"wrong field", codes.InvalidArgument, "ports.http: 70000 is no port",
		[]protoadapt.MessageV1{&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "ports.http", Description: "70000 is no port"},
		}}},
		ErrInvalid,
		Error{
			Message: "ports.http: 70000 is no port", Cure: "correct ports.http",
			Fields: []Field{{"ports.http", "70000 is no port"}},
		},
	}, {
		"unavailable", codes.Unavailable, "no LAN manager",
		[]protoadapt.MessageV1{info("NO_LAN_MANAGER"), &errdetails.RetryInfo{RetryDelay: durationpb.New(2 * time.Second)}},
		ErrUnavailable,
		Error{
			Message: "no LAN manager", Cure: "`agentctl status` says why there is no session with a LAN manager",
			Reason: "NO_LAN_MANAGER", RetryAfter: 2 * time.Second,
		},
	}, {
		"exhausted", codes.ResourceExhausted, "range 15000-15999 is full",
		[]protoadapt.MessageV1{&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)}},
		ErrExhausted,
		Error{Message: "range 15000-15999 is full", Cure: "try again in 1s", RetryAfter: time.Second},
	}, {
		"denied", codes.PermissionDenied, "uid 7 may not stop", []protoadapt.MessageV1{info("CALLER_NOT_ALLOWED", "uid", "7")},
		ErrDenied,
		Error{
			Message: "uid 7 may not stop", Cure: "ask as root or as the agent's user",
			Reason: "CALLER_NOT_ALLOWED", Metadata: map[string]string{"uid": "7"},
		},
	}, {
		"wrong state", codes.FailedPrecondition, "an outside process", []protoadapt.MessageV1{info("OUTSIDE_PROCESS")},
		ErrWrongState,
		Error{Message: "an outside process", Cure: "whoever started the process has to do it", Reason: "OUTSIDE_PROCESS"},
	}, {
		"a reason from the future", codes.FailedPrecondition, "the moon is full", []protoadapt.MessageV1{info("FULL_MOON")},
		ErrWrongState,
		Error{Message: "the moon is full", Reason: "FULL_MOON"},
	}, {
		"internal", codes.Internal, "error 4711", nil, ErrInternal,
		Error{Message: "error 4711", Cure: "the agent's log tells more"},
	}, {
		"no words at all", codes.NotFound, "", nil, ErrNotFound,
		Error{Message: "what the request names does not exist"},
	}, {
		"an old agent", codes.Unimplemented, "unknown method X", nil, errors.ErrUnsupported,
		Error{Message: "unknown method X", Cure: "the agent is older than its client: update it"},
	}} {
		t.Run(test.name, func(t *testing.T) {
			s, err := status.New(test.code, test.message).WithDetails(test.details...)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "agent.sock")
			serve(t, path, func(context.Context) (*machineagentv1.GetStatusResponse, error) { return nil, s.Err() })
			_, err = dial(t, path).Agent.Shutdown(t.Context(), &machineagentv1.ShutdownRequest{})
			var got *Error
			if !errors.As(err, &got) {
				t.Fatalf("%T %v", err, err)
			}
			if diff := cmp.Diff(test.want, *got, cmpopts.IgnoreUnexported(Error{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if !errors.Is(err, test.kind) || status.Code(err) != test.code {
				t.Errorf("%v is not %v, or its code %v not %v", err, test.kind, status.Code(err), test.code)
			}
		})
	}
}

// Every reason that the agent may give has a cure here.
func TestEveryReasonHasACure(t *testing.T) {
	for number, name := range machineagentv1.ErrorReason_name {
		e := &Error{Reason: name[len("ERROR_REASON_"):], kind: ErrWrongState}
		if number != 0 && e.commonCure() == "" {
			t.Errorf("%s has none", name)
		}
	}
}
