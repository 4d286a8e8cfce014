package server

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// linkHealth is the name under which health tells of the link to the LAN manager.
// Without it the agent serves its own callers all the same.
const linkHealth = "machineagent.v1.lan"

// watchPeriod is how often a health watch looks for a change.
const watchPeriod = time.Second

// healthService is grpc.health.v1. It asks the agent when it is asked: nothing
// runs, and nothing can be out of date, while nobody wants to know.
type healthService struct {
	grpc_health_v1.UnsafeHealthServer
	server *Server
}

type servingStatus = grpc_health_v1.HealthCheckResponse_ServingStatus

const (
	serving        = grpc_health_v1.HealthCheckResponse_SERVING
	notServing     = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	unknownService = grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
)

// look is the status of what health calls a service.
func (h *healthService) look(ctx context.Context, name string) (servingStatus, error) {
	if !h.knows(name) {
		return unknownService, nil
	}
	if h.server.left() {
		return notServing, nil
	}
	if name != linkHealth {
		return serving, nil
	}
	st, err := h.server.config.Agent.Pulse(ctx)
	if err != nil || !st.Link.Connected {
		return notServing, err
	}
	return serving, nil
}

// knows tells whether there is such a service: "" is the agent as a whole.
func (h *healthService) knows(name string) bool {
	if name == "" || name == linkHealth {
		return true
	}
	_, registered := h.server.grpc.GetServiceInfo()[name]
	return registered && strings.HasPrefix(name, "machineagent.")
}

func (h *healthService) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	st, err := h.look(ctx, r.GetService())
	if err != nil {
		return nil, err
	}
	if st == unknownService {
		return nil, status.Errorf(codes.NotFound, "health knows no service %q; List names them", r.GetService())
	}
	return &grpc_health_v1.HealthCheckResponse{Status: st}, nil
}

func (h *healthService) List(ctx context.Context, _ *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	names := []string{"", linkHealth}
	for name := range h.server.grpc.GetServiceInfo() {
		if h.knows(name) {
			names = append(names, name)
		}
	}
	all := make(map[string]*grpc_health_v1.HealthCheckResponse, len(names))
	for _, name := range names {
		st, err := h.look(ctx, name)
		if err != nil {
			return nil, err
		}
		all[name] = &grpc_health_v1.HealthCheckResponse{Status: st}
	}
	return &grpc_health_v1.HealthListResponse{Statuses: all}, nil
}

// Watch sends the status at once and whenever it has changed, until the caller
// or the server leaves.
func (h *healthService) Watch(r *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	ctx := stream.Context()
	tick := time.NewTicker(watchPeriod)
	defer tick.Stop()
	for sent := servingStatus(-1); ; {
		leaving := h.server.left() // asked first, so that what is sent says so too
		st, err := h.look(ctx, r.GetService())
		if err != nil {
			return err
		}
		if st != sent {
			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: st}); err != nil {
				return err
			}
			sent = st
		}
		if leaving {
			return status.Error(codes.Unavailable, "the agent is leaving")
		}
		select {
		case <-tick.C:
		case <-h.server.leaving:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
