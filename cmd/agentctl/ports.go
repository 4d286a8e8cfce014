package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func (l *commandLine) ports() *cobra.Command {
	return &cobra.Command{
		Use:   "ports",
		Short: "List the ports of this machine and who holds them",
		Long: `List the ports of this machine and who holds them.

STATE
  RESERVED     the agent holds the port; its process is not ready
  LISTENING    its process is ready on it
  ADOPTED      it came with a process that an earlier agent started
  OUTSIDE      an outside process named it
  QUARANTINED  it was released a moment ago and goes to no other instance for a while
  KEPT         its process has ended, and the next one gets the socket; who connects waits for it

LISTENER, as the operating system says
  OURS      a process of the instance listens, or the agent with the socket that it passes to it
  STRANGER  some other program does; DETAIL names it, if the agent may see it
  NOBODY    nobody does
  UNKNOWN   the operating system does not tell`,
		GroupID: looking,
		Args:    none,
		RunE: ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.ListPortsResponse, error) {
			return all(func(token string) (*machineagentv1.ListPortsResponse, error) {
				return c.Ports.ListPorts(ctx, &machineagentv1.ListPortsRequest{PageToken: token})
			})
		}, showPorts),
	}
}

func showPorts(p *page, r *machineagentv1.ListPortsResponse) {
	p.row("PORT", "PROTOCOL", "INSTANCE", "PID", "STATE", "LISTENER", "DETAIL")
	for _, lease := range r.Leases {
		p.row(number(lease.Port), strings.ToLower(word(lease.Protocol, "PROTOCOL_")), lease.Instance,
			number(lease.Pid), word(lease.State, "PORT_STATE_"), word(lease.Listener, "PORT_LISTENER_"), lease.Detail)
	}
}
