package server

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/allexgo/machine-agent/agent"
)

// domain is that of every google.rpc.ErrorInfo; its reasons are those of
// ErrorReason in error.proto.
const domain = "machineagent"

// retryDelay is what RetryInfo advises.
const retryDelay = time.Second

// failure turns the error of a call into a gRPC status with details.
func (s *Server) failure(method string, err error) error {
	var known *agent.Error
	switch {
	case errors.As(err, &known):
		s.log.Debug("call refused", "method", method, "error", err)
		return statusOf(known)
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "the caller gave up")
	case errors.Is(err, context.DeadlineExceeded):
		return status.Errorf(codes.DeadlineExceeded, "the agent did not answer in time (at most %s)", callLimit)
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	return s.internal(method, err)
}

// internal hides an error that its caller can do nothing about; the log has it
// under the id that the caller is told.
func (s *Server) internal(method string, err error) error {
	id := rand.Text()[:12]
	s.log.Error("call failed", "method", method, "id", id, "error", err)
	return status.Errorf(codes.Internal, "internal error %s; the agent's log has its cause under this id", id)
}

// kinds gives each kind of error its code.
var kinds = map[agent.Kind]codes.Code{
	agent.Invalid:     codes.InvalidArgument,
	agent.NotFound:    codes.NotFound,
	agent.Exists:      codes.AlreadyExists,
	agent.Denied:      codes.PermissionDenied,
	agent.WrongState:  codes.FailedPrecondition,
	agent.Exhausted:   codes.ResourceExhausted,
	agent.Unavailable: codes.Unavailable,
	agent.Compacted:   codes.OutOfRange,
	agent.CutOff:      codes.Aborted,
}

// statusOf is e on the wire: its code, its text, and details for programs.
func statusOf(e *agent.Error) error {
	code, ok := kinds[e.Kind]
	if !ok {
		code = codes.Unknown
	}
	return withDetails(status.New(code, e.Message), details(e)...)
}

func details(e *agent.Error) (all []protoadapt.MessageV1) {
	if e.Reason != "" {
		all = append(all, &errdetails.ErrorInfo{Reason: string(e.Reason), Domain: domain, Metadata: e.Metadata})
	}
	switch e.Kind {
	case agent.Invalid:
		if e.Field != "" {
			var v violations
			v.add(e.Field, "%s", strings.TrimPrefix(e.Message, e.Field+": "))
			all = append(all, v.detail())
		}
	case agent.NotFound, agent.Exists:
		kind, name := subject(e)
		all = append(all, &errdetails.ResourceInfo{ResourceType: kind, ResourceName: name, Description: e.Message})
	case agent.WrongState:
		_, name := subject(e)
		all = append(all, &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
			{Type: string(e.Reason), Subject: name, Description: e.Message},
		}})
	case agent.Exhausted, agent.Unavailable:
		all = append(all, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryDelay)})
	}
	return all
}

// subject is what e is about, out of its metadata.
func subject(e *agent.Error) (kind, name string) {
	for _, kind := range [...]string{"instance", "port", "pid"} {
		if name := e.Metadata[kind]; name != "" {
			return kind, name
		}
	}
	return "", ""
}

// withDetails is st with details. A status that can not take them goes without.
func withDetails(st *status.Status, details ...protoadapt.MessageV1) error {
	if detailed, err := st.WithDetails(details...); err == nil {
		return detailed.Err()
	}
	return st.Err()
}
