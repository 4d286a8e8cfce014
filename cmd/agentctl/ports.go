package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func (l *commandLine) ports() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ports",
		Short: "List the ports of this machine and who holds them",
		Long: `List the ports of this machine and who holds them.

STATE
  RESERVED     the agent holds the port; its process is not ready, or has it beside
               those of its need
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
	cmd.AddCommand(l.reservePort(), l.releasePort(), l.checkPort())
	return cmd
}

func showPorts(p *page, r *machineagentv1.ListPortsResponse) {
	p.head("PORT", "PROTOCOL", "INSTANCE", "PID", "STATE", "LISTENER", "DETAIL")
	for _, lease := range r.Leases {
		p.row(number(lease.Port), strings.ToLower(word(lease.Protocol, "PROTOCOL_")), lease.Instance,
			number(lease.Pid), word(lease.State, "PORT_STATE_"), word(lease.Listener, "PORT_LISTENER_"), lease.Detail)
	}
}

func (l *commandLine) reservePort() *cobra.Command {
	r := &machineagentv1.ReservePortRequest{}
	cmd := &cobra.Command{
		Use:   "reserve tcp|http|ws [PORT]",
		Short: "Hold a port for a process for as long as that runs",
		Long: `Hold a port for a process, beside those of needs: PORT, or else one of the range of
the protocol. The agent gives it to nobody else, and no other program can bind it,
but for one that sets SO_REUSEADDR. The process binds it with that option.

The port comes back when the process ends, with ` + "`agentctl ports release`" + `, and when the
agent ends or is upgraded. Since agentctl itself ends at once, say whose the port is:
--pid, such as $$ for the shell, or --instance for the process that an instance has
now. A script that the agent started says neither; it is for its own instance.`,
		Example: "  agentctl ports reserve http --pid $$\n" +
			"  agentctl ports reserve tcp 5432 --instance database",
		Args: func(_ *cobra.Command, args []string) (err error) {
			r.Protocol, r.Port, err = protocolAndPort(args)
			return err
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []cobra.Completion{"tcp", "http", "ws"}, cobra.ShellCompDirectiveNoFileComp
		},
		PreRunE: func(*cobra.Command, []string) error { return checkHolder(r) },
		RunE: ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.ReservePortResponse, error) {
			answer, err := c.Ports.ReservePort(ctx, r)
			if err == nil && r.Pid == 0 && int(answer.GetLease().GetPid()) == os.Getpid() {
				return nil, &usageError{"the agent does not know this as one of its processes, so that the port would come back at once", "say with --pid or --instance whose it is"}
			}
			return answer, err
		}, func(p *page, r *machineagentv1.ReservePortResponse) {
			p.line("%s port %d is held for %s until that ends, or until `agentctl ports release %[2]d`",
				strings.ToLower(word(r.Lease.GetProtocol(), "PROTOCOL_")), r.Lease.GetPort(), holder(r.Lease))
		}),
	}
	cmd.Flags().Int32Var(&r.Pid, "pid", 0, "the process that holds it")
	cmd.Flags().StringVar(&r.Instance, "instance", "", "the instance whose process holds it")
	completeFlag(cmd, "instance", l.complete(instances))
	return cmd
}

// holder is the process for which a port is held. The lease of one that is of no
// instance has the name "(pid 4711)".
func holder(lease *machineagentv1.PortLease) string {
	process := fmt.Sprintf("pid %d", lease.GetPid())
	if lease.GetInstance() == "("+process+")" {
		return process
	}
	return lease.GetInstance() + ", " + process + ","
}

// protocolAndPort are the arguments of `agentctl ports reserve`.
func protocolAndPort(args []string) (p machineagentv1.Protocol, port int32, err error) {
	switch len(args) {
	case 0:
		return 0, 0, &usageError{"the protocol is missing", "write it like `agentctl ports reserve http --pid $$`"}
	case 1, 2:
	default:
		return 0, 0, fmt.Errorf("one protocol and one port at a time, not %d arguments", len(args))
	}
	value := machineagentv1.Protocol_value["PROTOCOL_"+strings.ToUpper(args[0])]
	if value == 0 {
		return 0, 0, &usageError{fmt.Sprintf("%q is no protocol", args[0]), "name tcp, http or ws"}
	}
	if len(args) == 2 {
		port, err = portOf(args[1])
	}
	return machineagentv1.Protocol(value), port, err
}

// checkHolder sees to it that somebody is named who outlives agentctl.
func checkHolder(r *machineagentv1.ReservePortRequest) error {
	switch {
	case r.Pid < 0:
		return fmt.Errorf("--pid %d is no process", r.Pid)
	case r.Pid != 0 && r.Instance != "":
		return errors.New("--pid and --instance both say who holds the port; one of them may")
	case r.Pid == 0 && r.Instance == "" && os.Getenv(instanceVariable) == "":
		return &usageError{"--pid or --instance is missing", "say whose the port is, which comes back when that process ends; only what the agent started may leave it out"}
	}
	return nil
}

func (l *commandLine) releasePort() *cobra.Command {
	return &cobra.Command{
		Use:   "release PORT",
		Short: "Give a reserved port back before its process ends",
		Long: "Give a port back that was had with `agentctl ports reserve` or the call ReservePort,\n" +
			"before its process ends. Whoever listens on it is not disturbed. Those of a need\n" +
			"come back by themselves: `agentctl stop` ends what has them.",
		Args:              onePort,
		ValidArgsFunction: l.once(reservedPorts),
		RunE: ask(l, func(ctx context.Context, c *client.Client, args []string) (*machineagentv1.ReleasePortResponse, error) {
			port, _ := portOf(args[0]) // it is one
			return c.Ports.ReleasePort(ctx, &machineagentv1.ReleasePortRequest{Port: port})
		}, func(p *page, _ *machineagentv1.ReleasePortResponse) {
			p.line("the port is not held any more; after a short while others may get it")
		}),
	}
}

func (l *commandLine) checkPort() *cobra.Command {
	return &cobra.Command{
		Use:   "check PORT",
		Short: "Tell whether a port of this machine is free, and who has it",
		Long: "Tell whether a port of this machine is free: one that a need or a reservation which\n" +
			"asks for this very port would get now. If it is not, tell who has it, be it an\n" +
			"instance or any program. The exit code is 0 either way; for a script, -o json has\n" +
			"\"free\".",
		Args: onePort,
		RunE: func(cmd *cobra.Command, args []string) error {
			port, _ := portOf(args[0]) // it is one
			return ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.CheckPortResponse, error) {
				return c.Ports.CheckPort(ctx, &machineagentv1.CheckPortRequest{Port: port})
			}, func(p *page, r *machineagentv1.CheckPortResponse) {
				if r.Free {
					p.line("port %d is free", port)
				} else {
					p.line("port %d is not free: %s", port, r.Detail)
				}
			})(cmd, args)
		},
	}
}

// onePort is the argument of commands about one port.
func onePort(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return &usageError{"the port is missing", "write it like `agentctl ports " + cmd.Use + "`; `agentctl ports` shows those that are held"}
	case len(args) > 1:
		return fmt.Errorf("one port at a time, not %d", len(args))
	}
	_, err := portOf(args[0])
	return err
}

func portOf(text string) (int32, error) {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("%q is no port; a port is 1 to 65535", text)
	}
	return int32(port), nil
}
