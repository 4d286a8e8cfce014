package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func (l *commandLine) needs() *cobra.Command {
	return &cobra.Command{
		Use:   "needs",
		Short: "List the needs of the LAN and say why each is served here or not",
		Long: `List the needs of the LAN and say why each is served here or not, and what would
help.

DECISION
  BID               this agent offers to serve it
  STARTING          its process is on its way to being ready
  SERVED_HERE       it is served by this agent
  HELD              an operator stopped it on this machine
  CAPACITY          this machine runs as many processes as it may
  ADDRESS           it asks for another machine
  NOT_CATALOGUED    this machine has no module of that name
  PORT_TAKEN        a port that it asks for is taken on this machine
  BACKOFF           its process ended too soon; a new one has to wait
  BID_PENDING       another agent was first with its offer
  SERVED_ELSEWHERE  another agent serves it

SERVED AT is the address of the machine that serves it. RETRY is when the agent
looks at it again by itself; without one it waits for something to change.`,
		GroupID: looking,
		Args:    none,
		RunE: ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.ListNeedsResponse, error) {
			return all(func(token string) (*machineagentv1.ListNeedsResponse, error) {
				return c.Needs.ListNeeds(ctx, &machineagentv1.ListNeedsRequest{PageToken: token})
			})
		}, showNeeds),
	}
}

func showNeeds(p *page, r *machineagentv1.ListNeedsResponse) {
	p.row(needHead...)
	for _, n := range r.Needs {
		p.row(p.need(n)...)
	}
}

var needHead = []string{"INSTANCE", "MODULE", "DECISION", "SERVED AT", "RETRY", "WHY"}

func (p *page) need(n *machineagentv1.NeedDecision) []string {
	return []string{n.Need.GetInstance(), n.Need.GetModule(), word(n.Decision, "DECISION_"),
		n.ServedAt, p.in(n.RetryTime), n.Detail}
}
