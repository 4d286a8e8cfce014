package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func (l *commandLine) services() *cobra.Command {
	return &cobra.Command{
		Use:   "services",
		Short: "List the services of the LAN and where they are",
		Long: `List the services of the LAN and where they are. HERE says which of them are
served by this machine's agent. While there is no session with the LAN manager it
is what that one said last.`,
		GroupID: looking,
		Args:    none,
		RunE: ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.ListServicesResponse, error) {
			return all(func(token string) (*machineagentv1.ListServicesResponse, error) {
				return c.Directory.ListServices(ctx, &machineagentv1.ListServicesRequest{PageToken: token})
			})
		}, func(p *page, r *machineagentv1.ListServicesResponse) {
			p.row(serviceHead...)
			for _, s := range r.Services {
				p.row(p.service(s)...)
			}
		}),
	}
}

func (l *commandLine) find() *cobra.Command {
	var byModule bool
	cmd := &cobra.Command{
		Use:   "find INSTANCE",
		Short: "Show where a service of the LAN is",
		Long: "Show where the service of an instance is or, with --module, all services of a\n" +
			"module. It fails if the LAN has no service of that instance.",
		Example:           "  agentctl find echo\n  agentctl find --module allex_echo",
		GroupID:           looking,
		Args:              instance,
		ValidArgsFunction: l.once(servedInstances),
	}
	cmd.Flags().BoolVar(&byModule, "module", false, "the name is that of a module")
	cmd.RunE = ask(l, func(ctx context.Context, c *client.Client, args []string) (*machineagentv1.FindServiceResponse, error) {
		r := &machineagentv1.FindServiceRequest{By: &machineagentv1.FindServiceRequest_Instance{Instance: args[0]}}
		if byModule {
			r.By = &machineagentv1.FindServiceRequest_Module{Module: args[0]}
		}
		return c.Directory.FindService(ctx, r)
	}, func(p *page, r *machineagentv1.FindServiceResponse) {
		p.row(serviceHead...)
		for _, s := range r.Services {
			p.row(p.service(s)...)
		}
	})
	return cmd
}

var serviceHead = []string{"INSTANCE", "MODULE", "ADDRESS", "PORTS", "HERE"}

func (p *page) service(s *machineagentv1.Service) []string {
	here := ""
	if s.ServedHere {
		here = "here"
	}
	return []string{s.Instance, s.Module, s.IpAddress, portList(s.Ports), here}
}
