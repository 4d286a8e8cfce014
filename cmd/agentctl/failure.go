package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/allexgo/machine-agent/client"
)

// Exit codes, as the help tells them.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitNoAgent = 3
)

// failure is how a run ends that did not do what was asked.
type failure struct {
	code          int
	message, cure string // the cure is one line, and may be empty
}

// usageError is a wrong command line with a cure of its own.
type usageError struct{ message, cure string }

func (e *usageError) Error() string { return e.message }

// noSuchCommand refuses the arguments of agentctl itself: were they right, a
// command would have taken them.
func noSuchCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	// Of a short word nearly every command is two letters away.
	if root.SuggestionsMinimumDistance = 2; len(args[0]) < 5 {
		root.SuggestionsMinimumDistance = 1
	}
	e := &usageError{fmt.Sprintf("there is no command %q", args[0]), "`agentctl help` lists the commands"}
	if similar := root.SuggestionsFor(args[0]); len(similar) > 0 {
		e.cure = "did you mean `agentctl " + strings.Join(similar, "` or `agentctl ") + "`?"
	}
	return e
}

// flagError says in our words what pflag finds wrong with a flag.
func flagError(cmd *cobra.Command, err error) error {
	if unknown, is := errors.AsType[*pflag.NotExistError](err); is {
		name := "--" + unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			name = name[1:]
		}
		return fmt.Errorf("%s has no flag %s", cmd.CommandPath(), name)
	}
	if lacking, is := errors.AsType[*pflag.ValueRequiredError](err); is {
		return fmt.Errorf("--%s lacks its value", lacking.GetFlag().Name)
	}
	if odd, is := errors.AsType[*pflag.InvalidSyntaxError](err); is {
		return fmt.Errorf("%q is no flag", odd.GetSpecifiedFlag())
	}
	if wrong, is := errors.AsType[*pflag.InvalidValueError](err); is {
		return fmt.Errorf("--%s %q is %s", wrong.GetFlag().Name, wrong.GetValue(), allowed(wrong.GetFlag()))
	}
	return err
}

// allowed says what a flag takes, after a value that it does not take.
func allowed(f *pflag.Flag) string {
	switch f.Name {
	case "tcp", "http", "ws":
		return "no port; a port is 1 to 65535"
	}
	const not = "not taken; "
	switch f.Value.Type() {
	case "int32":
		return not + fmt.Sprintf("a whole number up to %d is", math.MaxInt32)
	case "int64":
		return not + fmt.Sprintf("a whole number up to %d is", math.MaxInt64)
	case "duration":
		return not + "a time like 10s, 500ms or 1m30s is"
	default:
		return not + "true and false are"
	}
}

// instance is the argument of commands about one instance of this machine.
func instance(cmd *cobra.Command, args []string) error {
	return oneInstance(args, usageOf(cmd), "`agentctl ps` shows those of this machine")
}

// neededInstance is that of commands about one need.
func neededInstance(cmd *cobra.Command, args []string) error {
	return oneInstance(args, usageOf(cmd), "`agentctl needs` shows those of the LAN")
}

// servedInstance is that of commands about one service of the LAN.
func servedInstance(cmd *cobra.Command, args []string) error {
	return oneInstance(args, usageOf(cmd), "`agentctl services` shows those of the LAN")
}

// newInstance is that of commands which give a name. They have an example.
func newInstance(cmd *cobra.Command, args []string) error {
	example, _, _ := strings.Cut(cmd.Example, "\n")
	return oneInstance(args, strings.TrimSpace(example), "the name may be a new one")
}

func usageOf(cmd *cobra.Command) string { return cmd.Parent().CommandPath() + " " + cmd.Use }

// oneInstance refuses everything else, and says how it is written and which there are.
func oneInstance(args []string, how, which string) error {
	switch {
	case len(args) == 0, len(args) == 1 && args[0] == "":
		return &usageError{"the instance is missing", "write it like `" + how + "`; " + which}
	case len(args) > 1:
		return fmt.Errorf("one instance at a time, not %d", len(args))
	}
	return nil
}

// none refuses arguments.
func none(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument, but there is %q", cmd.Name(), args[0])
	}
	return nil
}

// failure tells what err of cmd means to the user.
func (l *commandLine) failure(cmd *cobra.Command, err error) failure {
	f := failure{code: exitFailed, message: err.Error()}
	if !l.asking {
		f.code = exitUsage
		f.cure = "`" + cmd.CommandPath() + " --help` tells how it is used"
	}
	var usage *usageError
	var told *client.Error
	switch {
	case errors.As(err, &usage):
		f.message, f.cure = usage.message, usage.cure
	case errors.As(err, &told):
		f.message, f.cure = message(told), cure(told)
		if len(told.Fields) > 0 && !written(cmd, told.Fields) {
			f.message, f.cure = told.Message, "`agentctl version` shows whether it is of another version than its agent"
		} else if len(told.Fields) > 0 && !slices.ContainsFunc(told.Fields, passing) {
			f.code = exitUsage
		}
	}
	switch {
	case errors.Is(err, client.ErrNoAgent):
		f.code = exitNoAgent
		if noSocket(l.socket) {
			f.cure = "move it away, where agentd is to listen, or name the address of your agent with --address or " + client.AddressVariable
		}
	case errors.Is(err, context.Canceled):
		f.message = "interrupted before the agent answered"
	}
	return f.oneCure()
}

// oneCure takes out of the message what another program that it quotes advised: that
// is the cure only if there is no other.
func (f failure) oneCure() failure {
	var lines []string
	for line := range strings.Lines(f.message) {
		line = strings.TrimRight(line, "\r\n")
		if advice, is := strings.CutPrefix(strings.TrimSpace(line), toDo); is {
			f.cure = cmp.Or(f.cure, strings.TrimSpace(advice))
		} else if line != "" {
			lines = append(lines, line)
		}
	}
	f.message = strings.Join(lines, "\n")
	return f
}

// lateCure helps where the agent did not answer within --timeout.
const lateCure = "`agentctl doctor` finds out why, and --timeout allows more time"

// message is what is wrong, with fields of a request in the words of the command line.
func message(e *client.Error) string {
	if len(e.Fields) == 0 {
		return e.Message
	}
	var wrong []string
	for _, field := range e.Fields {
		wrong = append(wrong, argument(field.Name)+": "+field.Problem)
	}
	return strings.Join(wrong, "; ")
}

// cure is what helps, in the words of the command line where it has its own.
func cure(e *client.Error) string {
	switch {
	case errors.Is(e, client.ErrNoAgent):
		return "start one with `agentd`, or name the address of yours with --address or " + client.AddressVariable
	case errors.Is(e, client.ErrStranger):
		return "find out whose it is; if your agent runs as that user, name him with --agent-user or " + userVariable
	case errors.Is(e, context.DeadlineExceeded):
		return lateCure
	case errors.Is(e, context.Canceled):
		return "`agentctl ps` shows whether it was done nevertheless"
	case len(e.Fields) > 0:
		return "correct " + argument(e.Fields[0].Name)
	default:
		return e.Cure
	}
}

// argument is the part of the command line that became a field of a request.
func argument(field string) string {
	switch field {
	case "instance", "need.instance":
		return "INSTANCE"
	case "need.ip_address":
		return "--ip"
	case "level":
		return "the level"
	case "protocol":
		return "PROTOCOL"
	case "port":
		return "PORT"
	case "need.property_hash":
		return "--properties"
	case "position":
		return "--from"
	case "ready_within":
		return "--ready-within"
	case "status_text":
		return "--status"
	default:
		return "--" + strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(field, "need."), "fixed_"), "ports.")
	}
}

// toDo is before a cure.
const toDo = "what to do:"

// written tells whether fields of a request were all made of what stands on the command
// line of cmd.
func written(cmd *cobra.Command, fields []client.Field) bool {
	return !slices.ContainsFunc(fields, func(field client.Field) bool {
		flag, is := strings.CutPrefix(argument(field.Name), "--")
		return is && cmd.Flags().Lookup(flag) == nil
	})
}

// passing tells whether a value of a field may well be right at another time, or on
// another machine: a process, a module, a place in a log.
func passing(field client.Field) bool {
	return slices.Contains([]string{"pid", "module", "position"}, field.Name)
}

func (f failure) print(w io.Writer) {
	head := "agentctl: "
	for line := range strings.SplitSeq(f.message, "\n") {
		fmt.Fprintf(w, "%s%s\n", head, printable(line))
		head = ""
	}
	if f.cure != "" {
		fmt.Fprintln(w, " ", toDo, printable(f.cure))
	}
}
