package server

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// unary is around every unary call: rights, time limit, errors, panics.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, s.internal(info.FullMethod, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	ctx, err = s.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, s.failure(info.FullMethod, err)
	}
	ctx, cancel := context.WithTimeout(ctx, limit(info.FullMethod))
	defer cancel()
	if resp, err = handle(ctx, req); err != nil {
		return nil, s.failure(info.FullMethod, err)
	}
	s.note(ctx, info.FullMethod, req)
	return resp, nil
}

// limit is how long a unary call may take.
func limit(method string) time.Duration {
	if method == pb.AgentService_Upgrade_FullMethodName {
		return upgradeLimit
	}
	return callLimit
}

// stream is around every streaming call: rights, errors, panics. Streams have no
// time limit.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.internal(info.FullMethod, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	s.streams.Add(1)
	defer s.streams.Add(-1)
	ctx := ss.Context()
	if ctx, err = s.admit(ctx, info.FullMethod); err == nil {
		err = handle(srv, granted{ss, ctx})
	}
	if err != nil {
		return s.failure(info.FullMethod, err)
	}
	return nil
}

// granted is a stream with the grant of its call.
type granted struct {
	grpc.ServerStream
	ctx context.Context
}

func (g granted) Context() context.Context { return g.ctx }

// note logs what an operator changed. Nothing else is logged for a call that
// went well: a child may call as often as it likes.
func (s *Server) note(ctx context.Context, method string, req any) {
	if rights[method][anyone] != nothing {
		return
	}
	g := grantOf(ctx)
	if g.class != operator {
		return
	}
	var instance string
	if named, ok := req.(interface{ GetInstance() string }); ok {
		instance = named.GetInstance()
	}
	s.log.Info("called by an operator", "method", method, "instance", instance, "pid", g.caller.pid, "uid", g.caller.uid)
}
