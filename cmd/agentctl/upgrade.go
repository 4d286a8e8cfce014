package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

const upgradePoll = 20 * time.Millisecond // how often it is asked whether an upgrade is done

// upgradeTimeout is how long an upgrade may take if nobody says: its check, until it
// is ready, and until the agent before is back if it is not.
func upgradeTimeout(within time.Duration) time.Duration {
	return max(time.Minute, 2*within+30*time.Second)
}

func (l *commandLine) upgrade() *cobra.Command {
	var binary string
	var within time.Duration
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Have another agentd take over in place",
		Long: "Have another agentd take over in the agent's process, which keeps its children, its\n" +
			"socket and its ports. It also reads the configuration anew. A program that does not\n" +
			"find the configuration and the state good is refused; one that is not ready in time\n" +
			"gives way to the one before.",
		GroupID: acting,
		Args:    none,
		RunE: ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.GetStatusResponse, error) {
			return upgrade(ctx, c, binary, within)
		}, func(p *page, s *machineagentv1.GetStatusResponse) {
			p.line("the agent is upgraded from %s to %s, in process %d", s.LastUpgrade.FromVersion, s.Version, s.Pid)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&binary, "binary", "", "the program; default: what is now where the running one was started from")
	completeFlag(cmd, "binary", cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)) // files
	f.DurationVar(&within, "ready-within", 10*time.Second, "how long it may take until it is ready")
	cmd.PreRun = func(cmd *cobra.Command, _ []string) {
		if !cmd.Flags().Changed("timeout") {
			l.timeout = upgradeTimeout(within)
		}
	}
	return cmd
}

// upgrade waits until the agent that answers is what came of the upgrade.
func upgrade(ctx context.Context, c *client.Client, binary string, within time.Duration) (*machineagentv1.GetStatusResponse, error) {
	if binary != "" {
		var err error
		if binary, err = filepath.Abs(binary); err != nil {
			return nil, err
		}
	}
	begun, err := c.Agent.Upgrade(ctx, &machineagentv1.UpgradeRequest{Binary: binary, ReadyWithin: durationpb.New(within)})
	if err != nil {
		return nil, err
	}
	for {
		status, err := c.Agent.GetStatus(ctx, &machineagentv1.GetStatusRequest{})
		last := status.GetLastUpgrade()
		switch {
		case errors.Is(err, client.ErrNoAgent): // it has ended: an upgrade leaves the socket open
			return nil, err
		case err != nil && ctx.Err() != nil:
			return nil, noEnd(ctx)
		case err != nil && !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded):
			return nil, err // what answers late, or not at all just now, is asked again
		case err != nil || last.GetId() != begun.GetId():
		case last.GetProblem() != "":
			return nil, fmt.Errorf("the agent is %s as before: %s", status.GetVersion(), last.GetProblem())
		default:
			return status, nil
		}
		select {
		case <-time.After(upgradePoll):
		case <-ctx.Done():
			return nil, noEnd(ctx)
		}
	}
}

// noEnd is the error of an upgrade that is not waited for any more.
func noEnd(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return &usageError{"the upgrade did not come to an end in time", "`agentctl status` shows whether it has since, and --timeout allows more time"}
}
