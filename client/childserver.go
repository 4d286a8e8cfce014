package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// newHealth is the health of a child that has not said that it is up.
func newHealth() *health.Server {
	h := health.NewServer()
	h.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	return h
}

func (c *Child) serving(yes bool) {
	status := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if yes {
		status = grpc_health_v1.HealthCheckResponse_SERVING
	}
	c.health.SetServingStatus("", status)
}

// lastAnswers is how long answers that are under way may take at the end.
const lastAnswers = time.Second

// serveSocket serves the child's own socket until end is called.
func (c *Child) serveSocket() (end func(), err error) {
	l, err := listenPrivate(fmt.Sprintf("/tmp/allexprocess.%d", os.Getpid()))
	if err != nil {
		return nil, err
	}
	s := grpc.NewServer()
	machineagentv1.RegisterChildServiceServer(s, childService{child: c})
	grpc_health_v1.RegisterHealthServer(s, c.health)
	c.tasks.Go(func() {
		if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			c.log.Warn("the child's socket is not served any more", "socket", l.Addr(), "error", err)
		}
	})
	return func() {
		// Who asked us to stop gets his answer; who watches our health does not
		// hold us up.
		late := time.AfterFunc(lastAnswers, s.Stop)
		defer late.Stop()
		s.GracefulStop()
	}, nil
}

// childService is machineagent.v1.ChildService.
type childService struct {
	machineagentv1.UnsafeChildServiceServer // a method that is missing does not compile
	child                                   *Child
}

func (s childService) Stop(_ context.Context, r *machineagentv1.StopRequest) (*machineagentv1.StopResponse, error) {
	stopped := &Stopped{Reason: r.GetReason()}
	if r.GetTimeout() != nil {
		stopped.Deadline = time.Now().Add(r.GetTimeout().AsDuration())
	}
	s.child.stop(stopped)
	return &machineagentv1.StopResponse{}, nil
}
