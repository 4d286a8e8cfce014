package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func (l *commandLine) needs() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "needs",
		Short: "List the needs of the LAN and say why each is served here or not",
		Long: `List the needs of the LAN and say why each is served here or not, and what would
help.

DECISION
  BID               this agent offers to serve it
  STARTING          its process is on its way to being ready; or there is one that is
                    withdrawn, or has to end before: WHY tells which
  SERVED_HERE       it is served by this agent
  DRAINED           an operator drained this machine
  HELD              an operator stopped it on this machine
  CAPACITY          this machine runs as many processes as it may
  ADDRESS           it asks for another machine
  NOT_CATALOGUED    this machine has no module of that name
  PORT_TAKEN        a port that it asks for is taken on this machine
  BACKOFF           its process ended too soon; a new one has to wait
  BID_PENDING       another agent was first with its offer
  SERVED_ELSEWHERE  another agent serves it

SERVED AT is the address of the machine that serves it. RETRY is when the agent
looks at it again by itself; without one it waits for something to change.`,
		GroupID: looking,
		Args:    none,
		RunE: ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.ListNeedsResponse, error) {
			r, err := all(func(token string) (*machineagentv1.ListNeedsResponse, error) {
				return c.Needs.ListNeeds(ctx, &machineagentv1.ListNeedsRequest{PageToken: token})
			})
			l.tellSilence(ctx, c, len(r.GetNeeds()))
			return r, err
		}, showNeeds),
	}
	cmd.AddCommand(l.addNeed(), l.removeNeed())
	return cmd
}

func (l *commandLine) addNeed() *cobra.Command {
	n := &machineagentv1.Need{FixedPorts: &machineagentv1.Ports{}}
	var properties string
	cmd := &cobra.Command{
		Use:   "add INSTANCE",
		Short: "Have the LAN manager keep a need",
		Long: "Have the LAN manager keep a need: that a service instance runs somewhere in the\n" +
			"LAN. Once more the same changes nothing; another one of that name is refused for\n" +
			"as long as there is one.",
		Example: "  agentctl needs add echo --module allex_echo\n" +
			"  agentctl needs add web --module files --http 8080 --ip 10.0.0.0/16 --properties '{\"root\": \"/srv\"}'",
		Args: newInstance,
		PreRunE: func(*cobra.Command, []string) error {
			if n.Module == "" {
				return &usageError{"--module is missing", "name the module that serves the need"}
			}
			if err := checkPorts(n.FixedPorts); err != nil {
				return err
			}
			if properties == "" {
				return nil
			}
			n.PropertyHash = &structpb.Struct{}
			if err := protojson.Unmarshal([]byte(properties), n.PropertyHash); err != nil {
				return &usageError{"--properties is no JSON object", `write it like '{"rooms": 3}'`}
			}
			return nil
		},
		RunE: ask(l, func(ctx context.Context, c *client.Client, args []string) (*machineagentv1.AddNeedResponse, error) {
			n.Instance = args[0]
			there, err := needOf(ctx, c, n.Instance)
			if err != nil {
				return nil, err
			}
			if there != nil && !alike(there, n) {
				return nil, another(there)
			}
			return c.Needs.AddNeed(ctx, &machineagentv1.AddNeedRequest{Need: n})
		}, func(p *page, _ *machineagentv1.AddNeedResponse) {
			p.line("the LAN manager keeps the need %s; `agentctl needs` shows what becomes of it", n.Instance)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&n.Module, "module", "", "the module that serves it")
	f.StringVar(&n.IpAddress, "ip", "", "the address, or range of addresses, of the machine that may serve it")
	f.StringVar(&properties, "properties", "", "what the service is started with, as a JSON object")
	f.Int32Var(&n.FixedPorts.Tcp, "tcp", 0, "the port of the raw protocol that it must have")
	f.Int32Var(&n.FixedPorts.Http, "http", 0, "the port of HTTP")
	f.Int32Var(&n.FixedPorts.Ws, "ws", 0, "the port of WebSocket")
	return cmd
}

func (l *commandLine) removeNeed() *cobra.Command {
	var before *machineagentv1.NeedDecision
	return &cobra.Command{
		Use:   "remove INSTANCE",
		Short: "Have the LAN manager forget a need",
		Long: "Have the LAN manager forget a need. A service that runs for it goes on. That there\n" +
			"is no such need is said, and is no failure: once more changes nothing.",
		Args:              neededInstance,
		ValidArgsFunction: l.once(neededInstances),
		RunE: ask(l, func(ctx context.Context, c *client.Client, args []string) (*machineagentv1.RemoveNeedResponse, error) {
			before = &machineagentv1.NeedDecision{Need: &machineagentv1.Need{Instance: args[0]}}
			if n, err := needOf(ctx, c, args[0]); err != nil {
				return nil, err
			} else if n != nil {
				before = n
			}
			return c.Needs.RemoveNeed(ctx, &machineagentv1.RemoveNeedRequest{Instance: args[0]})
		}, func(p *page, _ *machineagentv1.RemoveNeedResponse) {
			forgotten := "the LAN manager has forgotten the need " + before.Need.Instance
			switch {
			case before.Need.Module == "":
				p.line("the LAN had no need %s; `agentctl needs` shows those that there are", before.Need.Instance)
			case before.Decision == machineagentv1.Decision_DECISION_SERVED_HERE, before.Decision == machineagentv1.Decision_DECISION_STARTING:
				p.line("%s; its process here runs on: `agentctl report-down %s` ends it", forgotten, before.Need.Instance)
			case before.ServedAt != "":
				p.line("%s; its process at %s runs on: `agentctl report-down %s` on that machine ends it", forgotten, before.ServedAt, before.Need.Instance)
			default:
				p.line("%s", forgotten)
			}
		}),
	}
}

func showNeeds(p *page, r *machineagentv1.ListNeedsResponse) {
	p.head(needHead...)
	for _, n := range r.Needs {
		p.row(p.need(n)...)
	}
}

var needHead = []string{"INSTANCE", "MODULE", "DECISION", "SERVED AT", "RETRY", "WHY"}

func (p *page) need(n *machineagentv1.NeedDecision) []string {
	return []string{n.Need.GetInstance(), n.Need.GetModule(), word(n.Decision, "DECISION_"),
		n.ServedAt, p.in(n.RetryTime), n.Detail}
}

// needOf is the need of an instance, or the service that there is of it, with what
// the agent makes of it; nil if the LAN has neither.
func needOf(ctx context.Context, c *client.Client, instance string) (*machineagentv1.NeedDecision, error) {
	r, err := all(func(token string) (*machineagentv1.ListNeedsResponse, error) {
		return c.Needs.ListNeeds(ctx, &machineagentv1.ListNeedsRequest{PageToken: token})
	})
	for _, n := range r.GetNeeds() {
		if n.Need.GetInstance() == instance && n.Need.GetModule() != "" { // a hold alone has none
			return n, err
		}
	}
	return nil, err
}

// wanted tells whether the LAN needs an instance. Where that is not to be told to
// people, or can not be found out, it is taken to be.
func (l *commandLine) wanted(ctx context.Context, c *client.Client, instance string) bool {
	if l.output == "json" {
		return true
	}
	n, err := needOf(ctx, c, instance)
	return n != nil || err != nil
}

// alike tells whether a need is there already as it is to be added. Of one that is
// served the ports and the address that it asked for are not known any more, and
// properties are not shown to everybody.
func alike(there *machineagentv1.NeedDecision, n *machineagentv1.Need) bool {
	a, b := there.Need, n
	return a.Module == b.Module &&
		(a.PropertyHash == nil || proto.Equal(a.PropertyHash, cmp.Or(b.PropertyHash, &structpb.Struct{}))) &&
		(there.ServedAt != "" || a.IpAddress == b.IpAddress && portList(a.FixedPorts) == portList(b.FixedPorts))
}

// another refuses a need of whose name there is another one.
func another(there *machineagentv1.NeedDecision) error {
	n := there.Need
	is := []string{"module " + n.Module}
	if ports := portList(n.FixedPorts); ports != "" {
		is = append(is, ports)
	}
	if n.IpAddress != "" {
		is = append(is, "for a machine at "+n.IpAddress)
	}
	if len(n.PropertyHash.GetFields()) > 0 {
		is = append(is, "with properties of its own")
	}
	if there.ServedAt != "" {
		is = append(is, "served at "+there.ServedAt)
	}
	e := &usageError{message: fmt.Sprintf("the LAN has another need %s already: %s; nothing has changed", n.Instance, strings.Join(is, ", ")),
		cure: "choose another name, or `agentctl needs remove " + n.Instance + "` first"}
	if there.ServedAt != "" {
		e.cure += " and, on that machine, `agentctl report-down " + n.Instance + "`"
	}
	return e
}
