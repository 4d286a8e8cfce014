package main

import (
	"context"
	"fmt"
	"strings"

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
			r, err := all(func(token string) (*machineagentv1.ListServicesResponse, error) {
				return c.Directory.ListServices(ctx, &machineagentv1.ListServicesRequest{PageToken: token})
			})
			l.tellSilence(ctx, c, len(r.GetServices()))
			return r, err
		}, func(p *page, r *machineagentv1.ListServicesResponse) {
			p.head(serviceHead...)
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
		Args:              servedInstance,
		ValidArgsFunction: l.once(servedInstances),
	}
	cmd.Flags().BoolVar(&byModule, "module", false, "the name is that of a module")
	cmd.RunE = ask(l, func(ctx context.Context, c *client.Client, args []string) (*machineagentv1.FindServiceResponse, error) {
		r := &machineagentv1.FindServiceRequest{By: &machineagentv1.FindServiceRequest_Instance{Instance: args[0]}}
		if byModule {
			r.By = &machineagentv1.FindServiceRequest_Module{Module: args[0]}
		}
		found, err := c.Directory.FindService(ctx, r)
		l.tellSilence(ctx, c, len(found.GetServices()))
		return found, err
	}, func(p *page, r *machineagentv1.FindServiceResponse) {
		p.head(serviceHead...)
		for _, s := range r.Services {
			p.row(p.service(s)...)
		}
	})
	return cmd
}

// tellSilence tells people that what the agent says of the LAN, in so many rows, is
// not what is there now: it has no session with a LAN manager.
func (l *commandLine) tellSilence(ctx context.Context, c *client.Client, rows int) {
	if l.output == "json" {
		return
	}
	s, err := c.Agent.GetStatus(ctx, &machineagentv1.GetStatusRequest{})
	if err != nil || s.Link.GetConnected() {
		return
	}
	why := s.Link.GetProblem()
	if at := s.Link.GetLanManager(); !strings.Contains(why, at) {
		why = strings.TrimSuffix(at+": "+why, ": ")
	}
	if why != "" {
		why = " (" + printable(why) + ")"
	}
	told := "what is shown is what it knew last"
	if rows == 0 {
		told = "it knows of none"
	}
	fmt.Fprintf(l.stderr, "agentctl: the agent has no session with a LAN manager%s; %s\n", why, told)
}

var serviceHead = []string{"INSTANCE", "MODULE", "ADDRESS", "PORTS", "HERE"}

func (p *page) service(s *machineagentv1.Service) []string {
	here := ""
	if s.ServedHere {
		here = "here"
	}
	return []string{s.Instance, s.Module, s.IpAddress, portList(s.Ports), here}
}
