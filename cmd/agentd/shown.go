package main

import (
	"context"
	"fmt"
	"net"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/agent"
	"github.com/allexgo/machine-agent/agent/metrics"
	"github.com/allexgo/machine-agent/server"
	"github.com/allexgo/machine-agent/server/monitor"
)

// shown are the metrics, and where they are shown. Without an address nothing is
// counted, and a machine is served all the same if they can not be shown.
type shown struct {
	figures  *metrics.Figures // nil: nothing is shown
	listener net.Listener
	monitor  *monitor.Monitor
	log      hclog.Logger
}

// show takes the address; "" is none. Also after an error what it returns can be
// used.
func show(address string) (*shown, error) {
	if address == "" {
		return &shown{}, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return &shown{}, fmt.Errorf("the metrics are not shown: %w; free the address or change `metricsaddress`, and restart the agent", err)
	}
	return &shown{figures: metrics.New(), listener: l}, nil
}

// of says whose metrics they are.
func (s *shown) of(a *agent.Agent, api *server.Server, log hclog.Logger) {
	s.log = log
	s.monitor = monitor.New(monitor.Config{Agent: a, API: api, Figures: s.figures, Logger: log})
}

// serve shows the metrics until ctx ends.
func (s *shown) serve(ctx context.Context) {
	if s.figures == nil {
		return
	}
	if err := s.monitor.Serve(ctx, s.listener); err != nil {
		s.log.Error("the metrics are not shown any more; restart the agent to see them again", "error", err)
	}
}
