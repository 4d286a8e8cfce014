package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// instanceVariable is what the agent sets for its children.
const instanceVariable = "MACHINEAGENT_INSTANCE"

func (l *commandLine) register() *cobra.Command {
	r := &machineagentv1.RegisterProcessRequest{Ports: &machineagentv1.Ports{}}
	cmd := &cobra.Command{
		Use:   "register INSTANCE",
		Short: "Say that a process is up and under which name and ports it serves",
		Long: `Say that a process is up and under which name and ports it serves.

A script that the agent started says so of itself and names only the ports that
are not those it was given. For a process that the agent did not start, --pid
says which one it is; the agent watches it from then on and bids with it for the
need of that name.`,
		Example: "  agentctl register echo --pid 4711 --module allex_echo --http 8080\n" +
			"  agentctl register \"$MACHINEAGENT_INSTANCE\" --status 'serving 3 rooms'",
		GroupID: acting,
		Args:    newInstance,
		PreRunE: func(*cobra.Command, []string) error { return checkRegister(r) },
		RunE: ask(l, func(ctx context.Context, c *client.Client, args []string) (*machineagentv1.RegisterProcessResponse, error) {
			r.Instance = args[0]
			return c.Processes.RegisterProcess(ctx, r)
		}, func(p *page, r *machineagentv1.RegisterProcessResponse) {
			p.line("%s; registered", now(r.Process))
		}),
	}
	f := cmd.Flags()
	f.Int32Var(&r.Pid, "pid", 0, "the process; default: the child of the agent in which agentctl runs")
	f.StringVar(&r.Module, "module", "", "the module that it runs")
	f.Int32Var(&r.Ports.Tcp, "tcp", 0, "the port of the raw protocol on which it listens")
	f.Int32Var(&r.Ports.Http, "http", 0, "the port of HTTP")
	f.Int32Var(&r.Ports.Ws, "ws", 0, "the port of WebSocket")
	f.StringVar(&r.StatusText, "status", "", "a text for people, shown with the process")
	return cmd
}

func checkRegister(r *machineagentv1.RegisterProcessRequest) error {
	if err := checkPorts(r.Ports); err != nil {
		return err
	}
	switch {
	case r.Pid < 0:
		return fmt.Errorf("--pid %d is no process", r.Pid)
	case r.Pid == 0 && os.Getenv(instanceVariable) == "":
		// The caller would be agentctl itself, which is gone in a moment.
		return &usageError{"--pid is missing", "name the process; only what the agent started may leave it out"}
	}
	return nil
}

// checkPorts checks the ports that the flags tcp, http and ws name.
func checkPorts(p *machineagentv1.Ports) error {
	for _, port := range []struct {
		flag   string
		number int32
	}{{"tcp", p.Tcp}, {"http", p.Http}, {"ws", p.Ws}} {
		if port.number < 0 || port.number > 65535 {
			return fmt.Errorf("--%s %d is no port; a port is 1 to 65535", port.flag, port.number)
		}
	}
	return nil
}
