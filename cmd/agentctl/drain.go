package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func (l *commandLine) drain() *cobra.Command {
	wait := false
	begin := ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.DrainResponse, error) {
		return c.Agent.Drain(ctx, &machineagentv1.DrainRequest{})
	}, func(p *page, r *machineagentv1.DrainResponse) {
		p.line("drained: %s, and nothing is served here until `agentctl resume`", stopped(r.Stopping))
	})
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Leave all services to other machines",
		Long: "Leave all services to other machines: what runs here is stopped after the LAN knows\n" +
			"that it is gone, outside processes are withdrawn, and no need is served here until\n" +
			"`agentctl resume`, across restarts of the agent.",
		GroupID: acting,
		Args:    none,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := begin(cmd, args); err != nil || !wait {
				return err
			}
			return l.connected(func(c *client.Client) error { return l.awaitEmpty(cmd.Context(), c) })
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "show what is left, and end when nothing is; not bounded by --timeout")
	return cmd
}

func stopped(n int32) string {
	if n == 1 {
		return "1 process is being stopped"
	}
	return fmt.Sprintf("%d processes are being stopped", n)
}

// drainPoll is how often a drain is looked at.
const drainPoll = 100 * time.Millisecond

// awaitEmpty shows what is left of a drained machine, whenever that has changed,
// until nothing is. Of programs that read JSON it is only waited for.
func (l *commandLine) awaitEmpty(ctx context.Context, c *client.Client) error {
	for before := []string(nil); ; {
		left, err := l.left(ctx, c)
		if err != nil {
			return err
		}
		if l.output != "json" && (len(left) == 0 || !slices.Equal(left, before)) {
			if err := l.show(func(p *page) { p.line("%s", progress(left)) }); err != nil {
				return err
			}
		}
		if len(left) == 0 {
			return nil
		}
		before = left
		select {
		case <-time.After(drainPoll):
		case <-ctx.Done():
			return fmt.Errorf("the drain goes on, but it was not waited for: %w", context.Cause(ctx))
		}
	}
}

// left are the instances whose processes a drain still has to stop. It is an
// error if there is no drain any more.
func (l *commandLine) left(ctx context.Context, c *client.Client) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	status, err := c.Agent.GetStatus(ctx, &machineagentv1.GetStatusRequest{})
	if err != nil {
		return nil, err
	}
	if !status.Drained {
		return nil, errors.New("somebody has resumed the machine before it was empty")
	}
	r, err := all(func(token string) (*machineagentv1.ListProcessesResponse, error) {
		return c.Processes.ListProcesses(ctx, &machineagentv1.ListProcessesRequest{PageToken: token})
	})
	var names []string
	for _, x := range r.GetProcesses() {
		if x.State != machineagentv1.ProcessState_PROCESS_STATE_ENDED && x.Origin != machineagentv1.ProcessOrigin_PROCESS_ORIGIN_OUTSIDE {
			names = append(names, x.Instance)
		}
	}
	return names, err
}

// progress is one line about what is left.
func progress(left []string) string {
	if len(left) == 0 {
		return "nothing is left"
	}
	return fmt.Sprintf("%d left: %s", len(left), some(left, len(left)))
}

func (l *commandLine) resume() *cobra.Command {
	return &cobra.Command{
		Use:     "resume",
		Short:   "Let a drained machine serve again",
		Long:    "Let a drained machine serve again. Instances that are held stay held.",
		GroupID: acting,
		Args:    none,
		RunE: ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.ResumeResponse, error) {
			return c.Agent.Resume(ctx, &machineagentv1.ResumeRequest{})
		}, func(p *page, _ *machineagentv1.ResumeResponse) {
			p.line("this machine serves again; `agentctl needs` shows what it does")
		}),
	}
}
