package main

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// completionPatience is how long a shell waits for the names of instances.
const completionPatience = time.Second

func (l *commandLine) completion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print what has a shell complete commands, flags and instances",
		Long: `Print what has a shell complete commands, flags, and the instances of this
machine, for which the shell then asks the agent. Without an agent there are none.
For bash, the package bash-completion has to be there.`,
		Example: "  . <(agentctl completion bash)    # in ~/.bashrc\n" +
			"  . <(agentctl completion zsh)     # in ~/.zshrc, behind compinit\n" +
			"  agentctl completion fish >~/.config/fish/completions/agentctl.fish",
		GroupID:   looking,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("one shell is to be named, not %d: bash, zsh or fish", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(l.stdout, true)
			case "zsh":
				return root.GenZshCompletion(l.stdout)
			case "fish":
				return root.GenFishCompletion(l.stdout, true)
			default:
				return fmt.Errorf("%q is none of the shells that are known here: bash, zsh and fish", args[0])
			}
		},
	}
}

// completeFlag says how a flag of a command is completed.
func completeFlag(cmd *cobra.Command, flag string, how cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, how); err != nil {
		panic(err) // there is no such flag
	}
}

// offer is a name that may be meant, and what is to be said of it.
type offer struct{ name, is string }

// offers asks the agent what there is.
type offers func(context.Context, *client.Client) ([]offer, error)

// once completes the one argument that a command takes.
func (l *commandLine) once(what offers) cobra.CompletionFunc {
	anywhere := l.complete(what)
	return func(cmd *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return anywhere(cmd, args, begin)
	}
}

// complete completes a word. Who presses a key for that is not told what went wrong.
func (l *commandLine) complete(what offers) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var names []cobra.Completion
		_ = l.connected(func(c *client.Client) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
			defer cancel()
			all, err := what(ctx, c)
			for _, o := range all {
				if strings.HasPrefix(o.name, begin) && !strings.ContainsFunc(o.name, needsQuotes) {
					names = append(names, cobra.CompletionWithDesc(o.name, o.is))
				}
			}
			return err
		})
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// instances are those of this machine.
func instances(ctx context.Context, c *client.Client) ([]offer, error) {
	r, err := all(func(token string) (*machineagentv1.ListProcessesResponse, error) {
		return c.Processes.ListProcesses(ctx, &machineagentv1.ListProcessesRequest{PageToken: token})
	})
	var there []offer
	for _, x := range r.GetProcesses() {
		there = append(there, offer{x.Instance, standing(x)})
	}
	return there, err
}

// servedInstances are those that are served somewhere in the LAN.
func servedInstances(ctx context.Context, c *client.Client) ([]offer, error) {
	r, err := all(func(token string) (*machineagentv1.ListServicesResponse, error) {
		return c.Directory.ListServices(ctx, &machineagentv1.ListServicesRequest{PageToken: token})
	})
	var there []offer
	for _, x := range r.GetServices() {
		there = append(there, offer{x.Instance, printable(x.IpAddress)})
	}
	return there, err
}

// neededInstances are those that the LAN needs.
func neededInstances(ctx context.Context, c *client.Client) ([]offer, error) {
	r, err := all(func(token string) (*machineagentv1.ListNeedsResponse, error) {
		return c.Needs.ListNeeds(ctx, &machineagentv1.ListNeedsRequest{PageToken: token})
	})
	var there []offer
	for _, x := range r.GetNeeds() {
		there = append(there, offer{x.GetNeed().GetInstance(), word(x.Decision, "DECISION_")})
	}
	return there, err
}

// reservedPorts are those that may be given back. The few that are a starting
// process's are among them; nothing in a lease tells them from the rest.
func reservedPorts(ctx context.Context, c *client.Client) ([]offer, error) {
	r, err := all(func(token string) (*machineagentv1.ListPortsResponse, error) {
		return c.Ports.ListPorts(ctx, &machineagentv1.ListPortsRequest{PageToken: token})
	})
	var there []offer
	for _, x := range r.GetLeases() {
		if x.State == machineagentv1.PortState_PORT_STATE_RESERVED {
			there = append(there, offer{number(x.Port), printable(x.Instance)})
		}
	}
	return there, err
}

// needsQuotes tells what a shell might not leave as it is. Names come from the
// LAN, and one that is completed must not become a command.
func needsQuotes(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("._-+:@%/", r)
}

// standing is what a process is doing, and where it stands, in a few words.
func standing(x *machineagentv1.Process) string {
	var words []string
	for _, w := range []string{word(x.State, "PROCESS_STATE_"), word(x.Place, "PROCESS_PLACE_")} {
		if w != "" {
			words = append(words, w)
		}
	}
	if x.Held {
		words = append(words, "held")
	}
	return strings.Join(words, ", ")
}
