package server

import (
	"fmt"
	"net/netip"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

const (
	nameLimit = 255  // bytes of a name of an instance or a module
	textLimit = 1024 // bytes of a text for people
)

// violations are what is wrong with the form of a request: all of it, so that
// nobody has to find out one by one. What a request means is checked by the agent.
type violations []*errdetails.BadRequest_FieldViolation

func (v *violations) add(field, format string, args ...any) {
	*v = append(*v, &errdetails.BadRequest_FieldViolation{Field: field, Description: fmt.Sprintf(format, args...)})
}

// name checks the name of an instance or a module that must be there.
func (v *violations) name(field, value string) {
	if value == "" {
		v.add(field, "must be set")
	}
	v.length(field, value, nameLimit)
}

func (v *violations) length(field, value string, limit int) {
	if len(value) > limit {
		v.add(field, "has %d bytes, at most %d are allowed", len(value), limit)
	}
}

func (v *violations) ports(field string, p *pb.Ports) {
	v.port(field+".tcp", p.GetTcp())
	v.port(field+".http", p.GetHttp())
	v.port(field+".ws", p.GetWs())
}

func (v *violations) port(field string, port int32) {
	if port < 0 || port > 65535 {
		v.add(field, "is %d; a port is 1 to 65535, or 0 for none", port)
	}
}

// certainPort checks a port that must be there.
func (v *violations) certainPort(field string, port int32) {
	if port < 1 || port > 65535 {
		v.add(field, "is %d; a port is 1 to 65535", port)
	}
}

func (v *violations) address(field, value string) {
	if value == "" {
		return
	}
	if _, err := netip.ParseAddr(value); err == nil {
		return
	}
	if _, err := netip.ParsePrefix(value); err != nil {
		v.add(field, "%q is neither an address like 192.168.1.7 nor a range like 192.168.1.0/24", value)
	}
}

func (v violations) detail() *errdetails.BadRequest {
	return &errdetails.BadRequest{FieldViolations: v}
}

// err is nil if nothing is wrong.
func (v violations) err() error {
	if len(v) == 0 {
		return nil
	}
	text := make([]string, len(v))
	for i, one := range v {
		text[i] = one.Field + ": " + one.Description
	}
	return withDetails(status.New(codes.InvalidArgument, strings.Join(text, "; ")), v.detail())
}
