package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/allexgo/machine-agent/client"
)

const about = `agentctl shows what the agent of this machine does, and tells it what to do.

It talks to the agent on its socket, and to nobody else: the socket has to be
served by root, by you, or by the user of --agent-user. Anybody may look; what
changes something is for root and the agent's own user.

On a terminal what does not fit into a table is cut, with a "…" there, but for the
last column, which goes on below its row. In a pipe or a file, and with -o json,
everything is whole.

Exit codes:
  0  it was done
  1  it was refused or failed
  2  the command line is wrong
  3  there is no agent at the address
`

// userVariable names the agent's user for --agent-user.
const userVariable = "MACHINEAGENT_USER"

// The groups of commands in the help.
const (
	looking = "looking"
	acting  = "acting"
)

// commandLine is one run of agentctl: what was asked beside the command
// itself, and where the answer goes.
type commandLine struct {
	address   string
	agentUser string
	output    string
	timeout   time.Duration

	now    time.Time // ages are told as of this moment
	began  time.Time // the same, but for a test
	stdout io.Writer
	stderr io.Writer
	socket string // of the address, when that is right
	// asking is set when the command line has turned out to be right; an error
	// before that is the user's.
	asking bool
}

// Run does what args say and returns the exit code. The answer goes to stdout;
// an error, with its cure in a second line, to stderr.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return run(ctx, time.Now(), args, stdout, stderr)
}

func run(ctx context.Context, now time.Time, args []string, stdout, stderr io.Writer) int {
	l := &commandLine{now: now, began: time.Now(), stdout: stdout, stderr: stderr}
	root := l.root()
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	f := l.failure(cmd, err)
	f.print(stderr)
	return f.code
}

func (l *commandLine) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "agentctl COMMAND",
		Long:          about,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		// Its line would show agentctl alone as a use of it.
		DisableFlagsInUseLine:      true,
		SuggestionsMinimumDistance: 2,
		SilenceUsage:               true,
		Version:                    ownVersion(),
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	f := root.PersistentFlags()
	f.StringVar(&l.address, "address", cmp.Or(os.Getenv(client.AddressVariable), client.DefaultTarget),
		"where the agent listens; default from "+client.AddressVariable)
	f.StringVar(&l.agentUser, "agent-user", os.Getenv(userVariable),
		"the user as whom the agent runs, if neither root nor you; default from "+userVariable)
	f.StringVarP(&l.output, "output", "o", "table", "table, or json: the agent's answer as it is")
	f.DurationVar(&l.timeout, "timeout", 10*time.Second, "how long to wait for the agent")
	root.SetVersionTemplate("agentctl  {{.Version}}\n")
	root.Flags().Bool("version", false, "print the version of agentctl")
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(&cobra.Group{ID: looking, Title: "What there is:"}, &cobra.Group{ID: acting, Title: "What to do:"})
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	completeFlag(root, "output", cobra.FixedCompletions([]cobra.Completion{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(l.status(), l.ps(), l.ports(), l.needs(), l.services(), l.find(), l.modules(), l.logs(), l.top(), l.watch(),
		l.events(), l.doctor(), l.version(), l.completion(),
		l.stop(), l.start(), l.restart(), l.register(), l.reportDown(), l.drain(), l.resume(), l.reload(), l.logLevel(),
		l.upgrade(), l.shutdown())
	root.SetHelpCommand(help())
	// That agentctl takes a command, its own line says.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(),
		"{{if .HasAvailableSubCommands}}\n  {{.CommandPath}} [command]{{end}}", "", 1))
	return root
}

// help replaces cobra's own, which calls an unknown topic a success.
func help() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Tell how a command is used",
		GroupID: looking,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return noSuchCommand(cmd.Root(), rest)
			}
			topic.InitDefaultHelpFlag()
			return topic.Help()
		},
	}
}

// ask makes what a command does: call the agent, show its answer.
func ask[A proto.Message](l *commandLine,
	call func(ctx context.Context, c *client.Client, args []string) (A, error), show func(*page, A),
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return l.connected(func(c *client.Client) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), l.timeout)
			defer cancel()
			answer, err := call(ctx, c, args)
			if err != nil {
				return err
			}
			if l.output == "json" {
				return printJSON(l.stdout, answer)
			}
			return l.show(func(p *page) { show(p, answer) })
		})
	}
}

// connected does something with a client.
func (l *commandLine) connected(do func(*client.Client) error) error {
	c, err := l.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	l.asking = true
	return do(c)
}

// patiently begins a stream that is given --timeout until it says that it is
// answered, and from then on all the time that it takes.
func (l *commandLine) patiently(ctx context.Context, c *client.Client, do func(ctx context.Context, answered func()) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := time.AfterFunc(l.timeout, func() { cancel(context.DeadlineExceeded) })
	defer patience.Stop()
	err := do(ctx, func() { patience.Stop() })
	if err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return &usageError{fmt.Sprintf("the agent at %s did not answer in time", c.Address()), lateCure}
	}
	return err
}

// show prints a page.
func (l *commandLine) show(fill func(*page)) error {
	p := &page{now: l.now}
	fill(p)
	return p.print(l.stdout)
}

// dial checks the flags of all commands and makes a client of them.
func (l *commandLine) dial() (*client.Client, error) {
	if l.output != "table" && l.output != "json" {
		return nil, fmt.Errorf("--output %q is neither table nor json", l.output)
	}
	if l.timeout <= 0 {
		return nil, fmt.Errorf("--timeout %s is no time to wait", l.timeout)
	}
	options := []client.Option{client.Patience(max(l.timeout, client.DefaultDeadline))}
	if l.agentUser != "" {
		uid, err := uidOf(l.agentUser)
		if err != nil {
			if _, is := errors.AsType[user.UnknownUserError](err); is {
				return nil, fmt.Errorf("--agent-user %q is no user of this machine", l.agentUser)
			}
			return nil, fmt.Errorf("--agent-user: %w", err)
		}
		options = append(options, client.TrustUser(uid))
	}
	c, err := client.Dial(l.address, options...)
	if err == nil {
		l.socket = c.Address()
	}
	return c, err
}

// uidOf takes a user's name or number.
func uidOf(name string) (int, error) {
	if uid, err := strconv.ParseUint(name, 10, 32); err == nil {
		return int(uid), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}
