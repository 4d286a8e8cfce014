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

var serviceHead = []string{"INSTANCE", "MODULE", "ADDRESS", "PORTS", "HERE"}

func (p *page) service(s *machineagentv1.Service) []string {
	here := ""
	if s.ServedHere {
		here = "here"
	}
	return []string{s.Instance, s.Module, s.IpAddress, portList(s.Ports), here}
}
