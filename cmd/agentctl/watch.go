package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func (l *commandLine) watch() *cobra.Command {
	var of string
	cmd := &cobra.Command{
		Use:   "watch [processes|needs|services]",
		Short: "Show what there is, and then what changes, until it is interrupted",
		Long: `Show the processes of this machine, or the needs or the services of the LAN, and
then what changes of them, until it is interrupted. When the agent restarts, it
goes on; what was shown before does not count any more then, and it says so.

With -o json it prints one object a line.`,
		Example:   "  agentctl watch\n  agentctl watch services --instance echo -o json",
		GroupID:   looking,
		ValidArgs: []string{"processes", "needs", "services"},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && !slices.Contains(cmd.ValidArgs, args[0]) {
				return fmt.Errorf("%q can not be watched; processes, needs or services can", strings.Join(args, " "))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&of, "instance", "", "the only instance to show")
	completeFlag(cmd, "instance", l.complete(instances))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch from := (client.From{Instance: of}); strings.Join(args, "") {
		case "needs":
			return follow(l, cmd.Context(), false, func(ctx context.Context, c *client.Client) iter.Seq2[client.Update[*machineagentv1.NeedDecision], error] {
				return c.WatchNeeds(ctx, from)
			}, sights[*machineagentv1.NeedDecision]{"need", needHead, (*page).need})
		case "services":
			return follow(l, cmd.Context(), false, func(ctx context.Context, c *client.Client) iter.Seq2[client.Update[*machineagentv1.Service], error] {
				return c.WatchServices(ctx, from)
			}, sights[*machineagentv1.Service]{"service", serviceHead, (*page).service})
		default:
			return follow(l, cmd.Context(), false, func(ctx context.Context, c *client.Client) iter.Seq2[client.Update[*machineagentv1.Process], error] {
				return c.WatchProcesses(ctx, from)
			}, sights[*machineagentv1.Process]{"process", processHead, (*page).process})
		}
	}
	return cmd
}

func (l *commandLine) events() *cobra.Command {
	var of string
	var on bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what has happened on this machine lately",
		Long: `Show what has happened on this machine lately, the oldest first: what became of
needs, processes and services, and why. The agent keeps the last 4,096 events
since it started.

With -o json it prints one object a line.`,
		Example: "  agentctl events --instance echo\n  agentctl events -f",
		GroupID: looking,
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return follow(l, cmd.Context(), !on, func(ctx context.Context, c *client.Client) iter.Seq2[client.Update[*machineagentv1.Event], error] {
				return c.WatchEvents(ctx, client.From{Instance: of})
			}, sights[*machineagentv1.Event]{"event", eventHead, (*page).event})
		},
	}
	cmd.Flags().StringVar(&of, "instance", "", "the only instance to show")
	completeFlag(cmd, "instance", l.complete(instances))
	cmd.Flags().BoolVarP(&on, "follow", "f", false, "go on with what happens, until it is interrupted")
	return cmd
}

var eventHead = []string{"TIME", "EVENT", "INSTANCE", "PID", "WHAT"}

func (p *page) event(e *machineagentv1.Event) []string {
	var what []string
	for _, w := range []string{word(e.Decision, "DECISION_"), e.ServedAt, exitText(e.ExitStatus), e.Detail} {
		if w != "" {
			what = append(what, w)
		}
	}
	return []string{e.Time.AsTime().In(p.now.Location()).Format("2006-01-02 15:04:05.000"),
		word(e.Kind, "EVENT_KIND_"), e.Instance, number(e.Pid), strings.Join(what, "; ")}
}

// sights is how one kind of thing is shown.
type sights[T proto.Message] struct {
	name string // in JSON
	head []string
	row  func(*page, T) []string
}

// follow shows what a watch tells: until it is interrupted, or, if once is set,
// until it has told what there is.
func follow[T proto.Message](l *commandLine, interrupted context.Context, once bool,
	watch func(context.Context, *client.Client) iter.Seq2[client.Update[T], error], how sights[T],
) error {
	c, err := l.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	l.asking = true
	show := how.inTable(l)
	if l.output == "json" {
		show = how.inJSON(l)
	}
	return l.patiently(interrupted, c, func(ctx context.Context, answered func()) error {
		for u, err := range watch(ctx, c) {
			switch {
			case err == nil:
			case interrupted.Err() != nil:
				return nil // that is how it ends
			default:
				return err
			}
			answered()
			if err := show(u); err != nil || once && u.Kind == client.CaughtUp {
				return err
			}
		}
		return nil
	})
}

// inJSON shows each update as a line.
func (how sights[T]) inJSON(l *commandLine) func(client.Update[T]) error {
	return func(u client.Update[T]) error {
		line := struct {
			Value    json.RawMessage `json:"value,omitempty"`
			Gone     string          `json:"gone,omitempty"`
			Over     string          `json:"startedOver,omitempty"`
			Epoch    string          `json:"epoch,omitempty"`
			Revision uint64          `json:"revision,omitempty"`
		}{Epoch: u.Epoch, Revision: u.Revision}
		switch u.Kind {
		case client.CaughtUp:
			return nil
		case client.StartedOver:
			line.Over = u.Reason.Error()
		case client.Gone:
			line.Gone = u.Instance
		default:
			text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(u.Value)
			if err != nil {
				return fmt.Errorf("the agent's answer is no JSON: %w", err)
			}
			line.Value = text
		}
		text, err := json.Marshal(line)
		if err != nil {
			return err
		}
		if line.Value != nil {
			text = []byte(strings.Replace(string(text), `"value"`, `"`+how.name+`"`, 1))
		}
		return write(l.stdout, append(text, '\n'))
	}
}

// inTable shows what there is as a table, and then each change as a line that is
// aligned with it.
func (how sights[T]) inTable(l *commandLine) func(client.Update[T]) error {
	t := &table{w: l.stdout}
	t.head(how.head)
	initial := true
	return func(u client.Update[T]) error {
		p := &page{now: l.now}
		if !initial {
			p.now = l.now.Add(time.Since(l.began))
		}
		switch u.Kind {
		case client.CaughtUp:
			initial = false
			return t.flush()
		case client.StartedOver:
			initial = true
			if err := t.flush(); err != nil {
				return err
			}
			return write(l.stdout, []byte("-- started over: what there is now follows\n"))
		case client.Gone:
			t.add([]string{u.Instance, "is gone"})
		default:
			t.add(how.row(p, u.Value))
		}
		if initial {
			return nil
		}
		return t.flush()
	}
}
