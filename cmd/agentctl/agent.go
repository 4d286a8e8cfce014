package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func (l *commandLine) status() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the agent, its link to the LAN manager, and what needs attention",
		GroupID: looking,
		Args:    none,
		RunE: ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.GetStatusResponse, error) {
			return c.Agent.GetStatus(ctx, &machineagentv1.GetStatusRequest{})
		}, showStatus),
	}
}

func showStatus(p *page, s *machineagentv1.GetStatusResponse) {
	p.row("Agent", fmt.Sprintf("%s %s, pid %d, up %s", s.Name, s.Version, s.Pid, p.age(s.StartTime)))
	p.row("LAN manager", p.link(s.Link))
	p.row("Seen as", s.Link.GetSeenAs())
	processes := plural(s.Processes, "process", "processes")
	if s.MaxProcesses > 0 {
		processes += fmt.Sprintf(" of at most %d", s.MaxProcesses)
	}
	p.row("Running here", processes)
	if s.Drained {
		p.row("Drained", "nothing is served here until `agentctl resume`")
	}
	p.row("Services", fmt.Sprintf("%d in the LAN, %d of them served here", s.Services, s.ServedHere))
	p.row("Open needs", fmt.Sprint(s.OpenNeeds))
	cgroups := "one for every child"
	if !s.Cgroups {
		cgroups = "none: what leaves its child's session can outlive it"
	}
	p.row("Cgroups", cgroups)
	if u := s.LastUpgrade; u != nil && u.Problem == "" {
		p.row("Upgraded", fmt.Sprintf("%s ago from %s", p.age(u.Time), u.FromVersion))
	} else if u != nil {
		for line := range strings.Lines(fmt.Sprintf("FAILED %s ago: %s", p.age(u.Time), u.Problem)) {
			p.row("Upgrade", strings.TrimSuffix(line, "\n"))
		}
	}
	if n := s.CrashLoopCount; n > 0 {
		p.row("Crash loops", some(s.CrashLoops, int(n))+"; `agentctl ps` tells more")
	}
	for _, warning := range s.Warnings {
		p.row("Warning", warning)
	}
}

func (p *page) link(link *machineagentv1.Link) string {
	since := ""
	if link.GetSinceTime() != nil {
		since = ", for " + p.age(link.SinceTime)
	}
	switch {
	case link.GetConnected():
		return "connected to " + link.LanManager + since
	case link.GetProblem() != "":
		return "NOT CONNECTED" + since + ": " + link.Problem
	default:
		return "NOT CONNECTED" + since
	}
}

func (l *commandLine) shutdown() *cobra.Command {
	return &cobra.Command{
		Use:   "shutdown",
		Short: "Stop every child, then the agent",
		Long: "Stop every child, then the agent. Outside processes go on.\n\n" +
			"To end the agent alone, send it SIGTERM: its children stay, and the next agent\ntakes them over.",
		GroupID: acting,
		Args:    none,
		RunE: ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.ShutdownResponse, error) {
			return c.Agent.Shutdown(ctx, &machineagentv1.ShutdownRequest{})
		}, func(p *page, r *machineagentv1.ShutdownResponse) {
			p.line("the agent is shutting down: it stops %s and leaves", plural(r.Stopping, "process", "processes"))
		}),
	}
}

func (l *commandLine) version() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the versions of agentctl and of the agent, if there is one",
		GroupID: looking,
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return l.connected(func(c *client.Client) error { return l.versions(cmd.Context(), c) })
		},
	}
}

// versions shows that of agentctl without waiting for the agent's.
func (l *commandLine) versions(ctx context.Context, c *client.Client) error {
	t := &table{w: l.stdout}
	if l.output == "table" {
		t.add([]string{"agentctl", ownVersion()})
		if err := t.flush(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	status, failed := c.Agent.GetStatus(ctx, &machineagentv1.GetStatusRequest{})
	if errors.Is(failed, client.ErrNoAgent) {
		failed = nil
	}
	switch {
	case l.output == "json":
		all, err := structpb.NewStruct(map[string]any{
			"agentctl": version,
			"agent":    status.GetVersion(),
			"go":       runtime.Version(),
			"platform": runtime.GOOS + "/" + runtime.GOARCH,
		})
		if err == nil {
			err = printJSON(l.stdout, all)
		}
		return cmp.Or(err, failed)
	case failed != nil:
		return failed
	}
	t.add([]string{"agent", status.GetVersion()})
	return t.flush()
}

func ownVersion() string {
	return fmt.Sprintf("%s (%s, %s/%s)", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
