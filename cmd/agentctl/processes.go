package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

func (l *commandLine) ps() *cobra.Command {
	usage := false
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the processes of this machine",
		Long: `List the processes of this machine.

STATE
  STARTING   it was started and is not ready yet
  READY      it is ready to serve
  WITHDRAWN  it runs, and is not offered to the LAN
  STOPPING   it was asked to end
  EMPTYING   it ended, what it started did not yet
  ENDED      it is gone

PLACE
  SERVED     the LAN's record of the service is this process
  OPEN       its need is open
  ELSEWHERE  another machine serves its need
  UNNEEDED   there is neither a need nor a record of it

With --usage, what it uses with all that it has started:
  CPU        processor time since its start, with that of what has ended
  MEMORY     in main memory; what several processes share is counted for each
  FILES      open descriptors
  THREADS    of its processes
  PROCESSES  it has, itself included

NOTE tells what is out of the ordinary. CRASH_LOOP: it ended too soon five times
in a row or more. It is started again all the same, after longer and longer waits;
once it has been healthy for a while, or nobody needs it any more, that is forgotten.
` + "`agentctl start`" + ` tries at once, and begins to count anew.`,
		GroupID: looking,
		Args:    none,
		RunE: ask(l, func(ctx context.Context, c *client.Client, _ []string) (*machineagentv1.ListProcessesResponse, error) {
			return all(func(token string) (*machineagentv1.ListProcessesResponse, error) {
				return c.Processes.ListProcesses(ctx, &machineagentv1.ListProcessesRequest{PageToken: token, Usage: usage})
			})
		}, func(p *page, r *machineagentv1.ListProcessesResponse) { showProcesses(p, r, usage) }),
	}
	cmd.Flags().BoolVar(&usage, "usage", false, "measure what each uses")
	return cmd
}

func showProcesses(p *page, r *machineagentv1.ListProcessesResponse, usage bool) {
	with := func(cells, used []string) []string {
		if usage { // before the note, which is long
			cells = slices.Insert(slices.Clone(cells), len(cells)-1, used...)
		}
		return cells
	}
	p.head(with(processHead, usageHead)...)
	for _, x := range r.Processes {
		p.row(with(p.process(x), used(x.Usage))...)
	}
}

var usageHead = []string{"CPU", "MEMORY", "FILES", "THREADS", "PROCESSES"}

// used is what a process uses, in cells; empty ones if that is not known.
func used(u *machineagentv1.ProcessUsage) []string {
	if u == nil {
		return make([]string, len(usageHead))
	}
	return []string{seconds(u.GetCpuTime().AsDuration()), size(u.GetMemoryBytes()),
		number(u.GetDescriptors()), number(u.GetThreads()), number(u.GetProcesses())}
}

var processHead = []string{"INSTANCE", "MODULE", "STATE", "PLACE", "PID", "AGE", "PORTS", "NOTE"}

func (p *page) process(x *machineagentv1.Process) []string {
	return []string{x.Instance, x.Module, word(x.State, "PROCESS_STATE_"), word(x.Place, "PROCESS_PLACE_"),
		number(x.Pid), p.age(x.StartTime), portList(x.Ports), p.note(x)}
}

// note is what is out of the ordinary with a process.
func (p *page) note(x *machineagentv1.Process) string {
	var notes []string
	add := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if x.Held {
		add("held")
	}
	switch x.Origin {
	case machineagentv1.ProcessOrigin_PROCESS_ORIGIN_ADOPTED:
		add("adopted")
	case machineagentv1.ProcessOrigin_PROCESS_ORIGIN_OUTSIDE:
		add("outside process")
	}
	if x.StatusText != "" {
		add("%q", x.StatusText)
	}
	if x.Reason != "" {
		add("%s: %s", strings.ToLower(word(x.State, "PROCESS_STATE_")), x.Reason)
	}
	if x.CrashLoop {
		add("CRASH_LOOP")
	}
	if x.Failures > 0 {
		since := ""
		if age := p.age(x.FailingSince); x.CrashLoop && age != "" {
			since = " in " + age
		}
		add("ended too soon %s%s", plural(x.Failures, "time", "times"), since)
	}
	if in := p.in(x.BackoffUntil); in != "" {
		add("may start again %s", in)
	}
	if last := lastEnd(x); last != "" {
		add("last: %s", last)
	}
	return strings.Join(notes, "; ")
}

// lastEnd is how the process before this one ended.
func lastEnd(x *machineagentv1.Process) string {
	if x.LastReason != "" {
		return x.LastReason
	}
	return exitText(x.LastExit)
}

// exitText is how a process ended, in words. Empty if it is not said.
func exitText(e *machineagentv1.ExitStatus) string {
	switch s := e.GetStatus().(type) {
	case *machineagentv1.ExitStatus_Code:
		return fmt.Sprintf("exit code %d", s.Code)
	case *machineagentv1.ExitStatus_Signal:
		return "signal " + s.Signal
	case *machineagentv1.ExitStatus_Unknown:
		return "exit status unknown"
	default:
		return ""
	}
}

func (l *commandLine) stop() *cobra.Command {
	wanted := true
	return &cobra.Command{
		Use:   "stop INSTANCE",
		Short: "Stop an instance and hold it on this machine",
		Long: "Stop an instance and hold it on this machine, across restarts of the agent, until\n" +
			"`agentctl start`. Other machines may serve its need. It does not wait for the end.\n" +
			"What is not here yet can be held, too.",
		GroupID:           acting,
		Args:              instance,
		ValidArgsFunction: l.once(instances),
		RunE: ask(l, func(ctx context.Context, c *client.Client, args []string) (*machineagentv1.StopProcessResponse, error) {
			r, err := c.Processes.StopProcess(ctx, &machineagentv1.StopProcessRequest{Instance: args[0]})
			if err == nil && r.Process.GetPid() == 0 {
				wanted = l.wanted(ctx, c, args[0])
			}
			return r, err
		}, func(p *page, r *machineagentv1.StopProcessResponse) {
			if !wanted { // a slip of the finger, as like as not
				p.line("there is no process and no need of the name %[1]s here; it is held all the same: `agentctl start %[1]s` lifts that", r.Process.GetInstance())
				return
			}
			p.line("%s; held here until `agentctl start %s`", now(r.Process), r.Process.GetInstance())
		}),
	}
}

func (l *commandLine) start() *cobra.Command {
	wanted := true
	return &cobra.Command{
		Use:   "start INSTANCE",
		Short: "Let a held instance run here again",
		Long: "Lift the hold of an instance and forget its back-off. Whether it then starts here\n" +
			"is for the LAN manager to say: `agentctl needs` shows it.",
		GroupID:           acting,
		Args:              instance,
		ValidArgsFunction: l.once(instances),
		RunE: ask(l, func(ctx context.Context, c *client.Client, args []string) (*machineagentv1.StartProcessResponse, error) {
			r, err := c.Processes.StartProcess(ctx, &machineagentv1.StartProcessRequest{Instance: args[0]})
			if err == nil && r.Process.GetPid() == 0 {
				wanted = l.wanted(ctx, c, args[0])
			}
			return r, err
		}, func(p *page, r *machineagentv1.StartProcessResponse) {
			switch x := r.Process; {
			case !wanted:
				p.line("%s may run here again; nothing starts, since the LAN does not need it", x.GetInstance())
			case x.GetPid() == 0: // which may be another thing in a moment
				p.line("%s may run here again; `agentctl needs` shows what becomes of it", x.GetInstance())
			default:
				p.line("%s; it may run here again", now(x))
			}
		}),
	}
}

func (l *commandLine) restart() *cobra.Command {
	return &cobra.Command{
		Use:   "restart INSTANCE",
		Short: "Stop the process of an instance and bid for its need again",
		Long: "Stop the process of an instance; its need opens again and this agent bids for it\n" +
			"at once. It does not wait for the replacement: `agentctl ps` shows it.",
		GroupID:           acting,
		Args:              instance,
		ValidArgsFunction: l.once(instances),
		RunE: ask(l, func(ctx context.Context, c *client.Client, args []string) (*machineagentv1.RestartProcessResponse, error) {
			return c.Processes.RestartProcess(ctx, &machineagentv1.RestartProcessRequest{Instance: args[0]})
		}, func(p *page, r *machineagentv1.RestartProcessResponse) {
			p.line("%s; this agent bids for its need again at once", now(r.Process))
		}),
	}
}

func (l *commandLine) reportDown() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "report-down INSTANCE",
		Short: "Take an instance off the LAN now, and stop its process",
		Long: "Take an instance off the LAN's table now, and stop its process. Its need opens\n" +
			"again, and this machine may serve it anew; `agentctl stop` prevents that.",
		GroupID:           acting,
		Args:              instance,
		ValidArgsFunction: l.once(instances),
		RunE: ask(l, func(ctx context.Context, c *client.Client, args []string) (*machineagentv1.ReportDownResponse, error) {
			return c.Processes.ReportDown(ctx, &machineagentv1.ReportDownRequest{Instance: args[0], Reason: reason})
		}, func(p *page, r *machineagentv1.ReportDownResponse) {
			p.line("%s; reported down", now(r.Process))
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for people and for the LAN manager")
	return cmd
}

// now is what the process of an instance is doing, at the head of a sentence.
func now(x *machineagentv1.Process) string {
	state := word(x.GetState(), "PROCESS_STATE_")
	if state == "" || x.GetPid() == 0 {
		return x.GetInstance() + " has no process"
	}
	return fmt.Sprintf("%s, pid %d, is %s", x.GetInstance(), x.GetPid(), state)
}
