package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// sample is what all processes had used at a time, or why that is not known.
type sample struct {
	at        time.Time
	processes []*machineagentv1.Process
	link      *machineagentv1.Link
	err       error
}

// measure takes a sample.
func measure(ctx context.Context, c *client.Client) sample {
	r, err := all(func(token string) (*machineagentv1.ListProcessesResponse, error) {
		return c.Processes.ListProcesses(ctx, &machineagentv1.ListProcessesRequest{PageToken: token, Usage: true})
	})
	if err != nil {
		return sample{at: time.Now(), err: err}
	}
	status, err := c.Agent.GetStatus(ctx, &machineagentv1.GetStatusRequest{})
	return sample{at: time.Now(), processes: r.GetProcesses(), link: status.GetLink(), err: err}
}

// use is a process with what it uses.
type use struct {
	*machineagentv1.Process
	cpu float64 // per cent of one core; negative if it is not known
}

// uses tells what was used between two samples.
func uses(before, now sample) []use {
	then := map[string]*machineagentv1.Process{}
	for _, x := range before.processes {
		then[x.Instance] = x
	}
	all := make([]use, len(now.processes))
	for i, x := range now.processes {
		all[i] = use{x, share(then[x.Instance], x, now.at.Sub(before.at))}
	}
	return all
}

// share is how much of one core a process had in a time, in per cent; negative if
// it was not there all that time.
func share(before, now *machineagentv1.Process, in time.Duration) float64 {
	if before.GetUsage() == nil || now.Usage == nil || in <= 0 ||
		before.Pid != now.Pid || !before.StartTime.AsTime().Equal(now.StartTime.AsTime()) {
		return -1
	}
	used := now.Usage.CpuTime.AsDuration() - before.Usage.CpuTime.AsDuration()
	if used < 0 {
		return -1 // what it had used is not known any more
	}
	return 100 * used.Seconds() / in.Seconds()
}

// column is one column of the table.
type column struct {
	title string
	name  string // for --sort
	key   string // that sorts by it; empty if it is not sorted by
	right bool   // its cells are numbers, and the greatest come first
	rank  int    // the columns with the greatest go first where there is no room
	cell  func(*page, use) string
	order func(a, b use) int
}

// columns are those of `agentctl ps --usage`, but for the ports.
var columns = []column{
	{title: "INSTANCE", name: "name", key: "n", cell: func(_ *page, u use) string { return u.Instance },
		order: func(a, b use) int { return cmp.Compare(a.Instance, b.Instance) }},
	{title: "MODULE", rank: 9, cell: func(_ *page, u use) string { return u.Module }},
	{title: "STATE", rank: 1, cell: func(_ *page, u use) string { return word(u.State, "PROCESS_STATE_") }},
	{title: "PLACE", rank: 8, cell: func(_ *page, u use) string { return word(u.Place, "PROCESS_PLACE_") }},
	{title: "PID", right: true, rank: 7, cell: func(_ *page, u use) string { return number(u.Pid) }},
	{title: "AGE", name: "age", key: "a", right: true, rank: 6, cell: func(p *page, u use) string { return p.age(u.StartTime) },
		order: func(a, b use) int { return b.started().Compare(a.started()) }},
	{title: "CPU%", name: "cpu", key: "c", right: true, rank: 2, cell: func(_ *page, u use) string { return u.percent() },
		order: asShown(use.percent, func(a, b use) int { return cmp.Compare(a.cpu, b.cpu) })},
	{title: "MEMORY", name: "memory", key: "m", right: true, rank: 2, cell: func(_ *page, u use) string { return u.memory() },
		order: asShown(use.memory, by((*machineagentv1.ProcessUsage).GetMemoryBytes))},
	counted("FILES", "files", "f", 3, (*machineagentv1.ProcessUsage).GetDescriptors),
	counted("THREADS", "threads", "t", 4, (*machineagentv1.ProcessUsage).GetThreads),
	counted("PROCESSES", "processes", "p", 5, (*machineagentv1.ProcessUsage).GetProcesses),
	{title: "NOTE", rank: 10, cell: func(p *page, u use) string { return p.note(u.Process) }},
}

// counted is a column of something that can be counted.
func counted(title, name, key string, rank int, count func(*machineagentv1.ProcessUsage) int32) column {
	return column{title: title, name: name, key: key, right: true, rank: rank,
		cell: func(_ *page, u use) string { return number(count(u.Usage)) }, order: by(count)}
}

// by orders by a figure.
func by[N cmp.Ordered](figure func(*machineagentv1.ProcessUsage) N) func(a, b use) int {
	return func(a, b use) int { return cmp.Compare(figure(a.Usage), figure(b.Usage)) }
}

// started is when a process started; one that is not there is the youngest.
func (u use) started() time.Time {
	if u.StartTime == nil {
		return time.Unix(1<<60, 0)
	}
	return u.StartTime.AsTime()
}

// percent is empty if it is not known.
func (u use) percent() string {
	if u.cpu < 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", u.cpu)
}

// memory is empty if it is not known.
func (u use) memory() string {
	if u.Usage == nil {
		return ""
	}
	return size(u.Usage.MemoryBytes)
}

// asShown has figures that look the same be the same, so that rows do not change
// places with each sample for what nobody sees.
func asShown(cell func(use) string, order func(a, b use) int) func(a, b use) int {
	return func(a, b use) int {
		if cell(a) == cell(b) {
			return 0
		}
		return order(a, b)
	}
}

// sortNames are what --sort takes.
func sortNames() []string {
	var names []string
	for _, c := range columns {
		if c.key != "" {
			names = append(names, c.name)
		}
	}
	return names
}

// order is by which column the table is sorted, and which way round.
type order struct {
	by        int
	backwards bool
}

// sort puts the greatest first, or what comes first in the alphabet; what is the
// same is in the order of names.
func (o order) sort(all []use) {
	c := columns[o.by]
	slices.SortFunc(all, func(a, b use) int {
		way := c.order(a, b)
		if c.right != o.backwards {
			way = -way
		}
		return cmp.Or(way, cmp.Compare(a.Instance, b.Instance))
	})
}

// matches tells whether a text is somewhere in what is shown of a process.
func (u use) matches(p *page, text string) bool {
	shown := strings.Join([]string{u.Instance, u.Module, standing(u.Process), p.note(u.Process)}, "\n")
	return strings.Contains(strings.ToLower(shown), strings.ToLower(text))
}
