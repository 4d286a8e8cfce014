package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The kinds of an Error, for errors.Is. A call that ran out of time is
// context.DeadlineExceeded, one that its caller gave up context.Canceled, one
// on a closed client net.ErrClosed, and one that the agent is too old for
// errors.ErrUnsupported.
var (
	ErrInvalid    = errors.New("the request is wrong")
	ErrNotFound   = errors.New("what the request names does not exist")
	ErrExists     = errors.New("another one has that name")
	ErrDenied     = errors.New("this caller may not do that")
	ErrWrongState = errors.New("it cannot be done now")
	ErrExhausted  = errors.New("there is no room left")
	// ErrNotKept means that a watch can not go on there: the agent is another
	// one, or too much has changed since.
	ErrNotKept = errors.New("what came before is not kept any more")
	// ErrSlow means that a watch was not read as fast as it was told.
	ErrSlow        = errors.New("the caller did not keep up")
	ErrUnavailable = errors.New("somebody who is needed is not there")
	// ErrNoAgent is an ErrUnavailable too: nobody listens at the address.
	ErrNoAgent = fmt.Errorf("there is no agent: %w", ErrUnavailable)
	// errMute is what a call gets whose connection was given up because nobody said a
	// word on it.
	errMute = fmt.Errorf("%w: %w", ErrUnavailable, context.DeadlineExceeded)
	// ErrStranger means that somebody listens at the address who is neither
	// root nor of the caller's own user. Nothing was sent to him.
	ErrStranger = errors.New("the socket is served by another user")
	ErrInternal = errors.New("the agent failed")
)

// Error is the error of every call. It is one of the kinds above for
// errors.Is, and status.Code and status.Convert see what came over the wire.
type Error struct {
	// Message says what happened, to what.
	Message string
	// Cure says what to do about it. Empty if nobody knows.
	Cure string
	// Reason is one of ErrorReason in machineagent/v1/error.proto, without
	// the prefix, such as INSTANCE_NOT_FOUND. Empty if the agent gave none.
	Reason string
	// Metadata is what belongs to the Reason, such as the instance.
	Metadata map[string]string
	// Fields are the fields of the request that are wrong; only of ErrInvalid.
	Fields []Field
	// RetryAfter is when another try may go better; 0 if the agent did not say.
	RetryAfter time.Duration

	kind   error
	status *status.Status
}

// Field is a field of a request, in the spelling of the .proto file and with
// the path to it (ports.http), and what is wrong with it.
type Field struct{ Name, Problem string }

// Error is the message and the cure.
func (e *Error) Error() string {
	if e.Cure == "" {
		return e.Message
	}
	return e.Message + "; " + e.Cure
}

// Unwrap is the kind.
func (e *Error) Unwrap() error { return e.kind }

// GRPCStatus is what grpc's status package sees in the error.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// newError makes an error that did not come from the agent.
func newError(kind error, code codes.Code, message, cure string) *Error {
	return &Error{Message: message, Cure: cure, kind: kind, status: status.New(code, message)}
}

// fromStatus makes an error of what the agent at address answered.
func fromStatus(s *status.Status, address string) *Error {
	e := &Error{kind: kindOf(s.Code()), status: s}
	// The agent's messages say what happened and, behind the last semicolon,
	// what to do.
	e.Message = s.Message()
	if i := strings.LastIndex(e.Message, "; "); i > 0 {
		e.Message, e.Cure = e.Message[:i], e.Message[i+2:]
	}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.Domain == "machineagent" {
				e.Reason, e.Metadata = d.Reason, d.Metadata
			}
		case *errdetails.BadRequest:
			for _, v := range d.FieldViolations {
				e.Fields = append(e.Fields, Field{v.Field, v.Description})
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.RetryDelay.AsDuration()
		}
	}
	if s.Code() == codes.DeadlineExceeded {
		e.Message = inTime(address)
	}
	if e.Message == "" {
		e.Message = e.kind.Error()
	}
	if e.Cure == "" {
		e.Cure = e.commonCure()
	}
	return e
}

// inTime says that the agent did not answer.
func inTime(address string) string { return "the agent at " + address + " did not answer in time" }

const lateCure = "`agentctl doctor` finds out why, and more time may help"

func kindOf(code codes.Code) error {
	switch code {
	case codes.InvalidArgument:
		return ErrInvalid
	case codes.OutOfRange:
		return ErrNotKept
	case codes.Aborted:
		return ErrSlow
	case codes.NotFound:
		return ErrNotFound
	case codes.AlreadyExists:
		return ErrExists
	case codes.PermissionDenied, codes.Unauthenticated:
		return ErrDenied
	case codes.FailedPrecondition:
		return ErrWrongState
	case codes.ResourceExhausted:
		return ErrExhausted
	case codes.Unavailable:
		return ErrUnavailable
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled:
		return context.Canceled
	case codes.Unimplemented:
		return errors.ErrUnsupported
	default:
		return ErrInternal
	}
}

// commonCure is what helps against errors of this sort in general. It is asked
// only if the agent's own message names no cure.
func (e *Error) commonCure() string {
	switch e.Reason {
	case "INSTANCE_NOT_FOUND":
		return "`agentctl ps` shows the instances of this machine"
	case "PID_NOT_FOUND":
		return "name a process that runs"
	case "INSTANCE_TAKEN":
		return "take another name, or end the process that has it"
	case "CALLER_NOT_ALLOWED":
		return "ask as root or as the agent's user"
	case "PORT_NOT_LISTENING":
		return "register after the process listens, with the ports it really opened"
	case "OUTSIDE_PROCESS":
		return "whoever started the process has to do it"
	case "NO_LAN_MANAGER":
		return "`agentctl status` says why there is no session with a LAN manager"
	case "LAN_MANAGER_REFUSED":
		return "the LAN manager's log tells why"
	case "NOT_RUNNING":
		return "`agentctl ps` shows how it ended"
	case "SHUTTING_DOWN":
		return "ask again when the agent is back"
	case "NOT_CATALOGUED":
		return "add its module and call `agentctl reload`, or use report-down to stop it"
	case "NOT_NEEDED":
		return "add a need for it, or use report-down to stop it"
	case "REVISION_COMPACTED":
		return "watch again without a revision, and forget what was told before"
	case "SLOW_CONSUMER":
		return "read faster, and go on behind the last revision"
	case "SERVICE_NOT_FOUND":
		return "`agentctl needs` says why it is not served, if it is needed"
	case "PORT_TAKEN":
		return "`agentctl ports` shows who has it; ask for another one"
	case "NO_PORT_LEFT":
		return "release some ports, or give the agent a larger range"
	case "PORT_NOT_RESERVED":
		return "`agentctl ports` shows who has which port"
	case "FILES_INVALID":
		return "correct the files and reload again"
	case "TOO_MANY_WATCHES":
		return "end some of the watches"
	case "TOO_MANY_READERS":
		return "end one of the readers"
	case "UPGRADE_REFUSED":
		return "mend that, or name another program; the agent goes on as it is"
	case "INSTANCE_HELD":
		return "`agentctl start` lifts the hold"
	}
	switch {
	case len(e.Fields) > 0:
		return "correct " + e.Fields[0].Name
	case e.RetryAfter > 0:
		return "try again in " + e.RetryAfter.String()
	case errors.Is(e, context.DeadlineExceeded):
		return lateCure
	case errors.Is(e, ErrDenied):
		return "ask as root or as the agent's user"
	case errors.Is(e, errors.ErrUnsupported):
		return "the agent is older than its client: update it"
	case errors.Is(e, ErrInternal):
		return "the agent's log tells more"
	default:
		return ""
	}
}
