package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// These are the commands about what the agent was told in files.

func (l *commandLine) modules() *cobra.Command {
	return &cobra.Command{
		Use:   "modules",
		Short: "List what this machine can run",
		Long: `List what this machine can run: the modules of its catalogue, how their processes
are known to be ready, how many there are, and how many of these were started
before the module changed.

PROBLEM is what is wrong with the configuration or the modules as their files are
now. The agent runs with what was right before.`,
		GroupID: looking,
		Args:    none,
		RunE: ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.ListModulesResponse, error) {
			return all(func(token string) (*machineagentv1.ListModulesResponse, error) {
				return c.Agent.ListModules(ctx, &machineagentv1.ListModulesRequest{PageToken: token})
			})
		}, func(p *page, r *machineagentv1.ListModulesResponse) {
			p.head("MODULE", "READY", "PORTS", "PROCESSES", "OUTDATED", "FILE", "COMMAND")
			for _, m := range r.Modules {
				var ports []string
				for _, protocol := range m.Ports {
					ports = append(ports, strings.ToLower(word(protocol, "PROTOCOL_")))
				}
				p.row(m.Name, m.Ready, strings.Join(ports, " "), number(m.Processes), number(m.Outdated), m.File, strings.Join(m.Command, " "))
			}
			for line := range strings.Lines(r.Problem) {
				p.line("PROBLEM: %s", strings.TrimSuffix(line, "\n"))
			}
		}),
	}
}

func (l *commandLine) reload() *cobra.Command {
	r := &machineagentv1.ReloadRequest{}
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the agent read its configuration and modules again",
		Long: `Have the agent read its configuration and its modules again, as SIGHUP does. What
can change while it runs does so now; of the rest it says which keys have to wait
for a start. Processes run on, and those whose module has changed are outdated.
With a mistake in any file nothing changes.`,
		GroupID: acting,
		Args:    none,
		RunE: ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.ReloadResponse, error) {
			return c.Agent.Reload(ctx, r)
		}, showReload),
	}
	cmd.Flags().BoolVar(&r.RestartOutdated, "restart-outdated", false, "restart the processes whose module has changed")
	return cmd
}

func showReload(p *page, r *machineagentv1.ReloadResponse) {
	any := false
	say := func(what string, names []string) {
		if len(names) > 0 {
			any = true
			p.row(what, strings.Join(names, ", "))
		}
	}
	say("In force now", r.Changed)
	say("In force at the next start", r.Unchanged)
	say("Modules added", r.ModulesAdded)
	say("Modules changed", r.ModulesChanged)
	say("Modules removed", r.ModulesRemoved)
	say("Restarting", r.Restarting)
	say("Outdated, running on", r.Outdated)
	if !any {
		p.line("nothing has changed")
	}
	if n := int(r.ModulesUnchangedCount); n > 0 {
		p.row("Modules unchanged", some(r.ModulesUnchanged, n))
	}
}

func (l *commandLine) logLevel() *cobra.Command {
	return &cobra.Command{
		Use:   "log-level trace|debug|info|warn|error",
		Short: "Have the agent's own log say more or less",
		Long: "Have the agent's own log say more or less, until the agent ends or another level\n" +
			"in its configuration is reloaded.",
		GroupID:   acting,
		ValidArgs: []string{"trace", "debug", "info", "warn", "error"},
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return &usageError{"the level is missing", "write it like `agentctl log-level debug`"}
			case len(args) > 1:
				return fmt.Errorf("one level at a time, not %d", len(args))
			case !slices.Contains(cmd.ValidArgs, args[0]):
				return fmt.Errorf("the level %q is none of %s", args[0], strings.Join(cmd.ValidArgs, ", "))
			}
			return nil
		},
		RunE: ask(l, func(ctx context.Context, c *client.Client, args []string) (*machineagentv1.SetLogLevelResponse, error) {
			return c.Agent.SetLogLevel(ctx, &machineagentv1.SetLogLevelRequest{Level: args[0]})
		}, func(p *page, r *machineagentv1.SetLogLevelResponse) {
			p.line("done; it was %s", r.Before)
		}),
	}
}
