package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/allexgo/machine-agent/agent/metrics"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/internal/fault"
)

// The origins as they stand in state records.
const (
	originStarted = "started"
	originOutside = "outside"
)

// adopt takes over what the agent before this one left: holds, and every
// recorded process that certainly is the recorded one. The rest has ended
// while nobody was there to see how. Nothing new starts before it is done.
func (l *loop) adopt() error {
	kept, err := l.Store.Kept()
	var unreadable *state.Damaged
	if errors.As(err, &unreadable) {
		l.Logger.Error("which instances an operator holds, and whether the machine is drained, is not known any more: say it again", "file", unreadable.Aside, "error", unreadable.Err)
	} else if err != nil {
		return err
	}
	for _, name := range kept.Holds {
		l.get(name).held = true
	}
	l.isDrained = kept.Drained
	for _, v := range kept.Loops {
		l.adoptLoop(v)
	}
	records, damaged, err := l.Store.Load()
	if err != nil {
		return err
	}
	for _, d := range damaged {
		l.Logger.Error("the record of a process is damaged; its process is looked for", "file", d.Aside, "error", d.Err)
	}
	found, err := l.openAll(records)
	if err != nil {
		return err
	}
	listeners := sync.OnceValues(func() ([]process.Listener, error) { return process.Listeners(0) })
	var unfinished []state.Record
	for n, r := range records {
		_ = fault.At(fault.Adopting)
		if perhapsStarted(r) {
			unfinished = append(unfinished, r)
		} else {
			l.adoptRecord(r, found[n], listeners)
		}
	}
	l.takeStrays(damaged, unfinished, func(r state.Record, p *process.Process) { l.adoptRecord(r, p, listeners) })
	for _, r := range unfinished {
		if !l.get(r.Instance).live() {
			l.adoptRecord(r, nil, listeners)
		}
	}
	l.ports.Settle()
	return nil
}

// opensAtOnce is how many recorded processes are opened at a time: most of it is
// the kernel's work, and some of it waiting for those who are to end.
const opensAtOnce = 8

// openAll opens the recorded processes, nil for each that is gone, of which
// nothing is left then. Only what is certainly gone may be taken for gone.
func (l *loop) openAll(records []state.Record) ([]*process.Process, error) {
	found := make([]*process.Process, len(records))
	var opening errgroup.Group
	opening.SetLimit(opensAtOnce)
	within, stop := context.WithTimeout(context.Background(), emptyAdopting)
	defer stop()
	for n, r := range records {
		opening.Go(func() (err error) {
			if found[n], err = open(r); err == nil {
				return nil
			}
			if !errors.Is(err, process.ErrGone) {
				return fmt.Errorf("instance %q can not be taken over: %w", r.Instance, err)
			}
			l.emptyCgroup(within, r)
			return nil
		})
	}
	err := opening.Wait()
	if err != nil {
		for _, p := range found {
			if p != nil {
				p.Close()
			}
		}
	}
	return found, err
}

// adoptRecord takes over a recorded process; p is nil if it is gone. listeners
// are those of the whole machine.
func (l *loop) adoptRecord(r state.Record, p *process.Process, listeners func() ([]process.Listener, error)) {
	i := l.get(r.Instance)
	i.lastModule = r.Module
	if p == nil {
		i.lastPorts, i.ghost = r.Ports, &r.Ports
		l.Figures.Count(metrics.EndUnknown)
		l.ended(i, cmp.Or(r.Main.PID, r.Identity.PID), time.Time{}, process.Exit{Unknown: true}, "it ended while no agent was there")
		if err := l.Store.Delete(r.Instance); err != nil {
			l.Logger.Warn("the record of an ended process could not be removed", "instance", r.Instance, "error", err)
		}
		l.settle(i)
		return
	}
	m, found := l.modules().Find(r.Module)
	if found && r.ModuleMark == (module.Mark{}) {
		r.ModuleMark = m.Mark() // an older agent wrote no mark; what changes from now on is seen
	}
	c := &child{keeper: l.newKeeper(r), module: m, origin: Adopted, state: process.Starting, ports: r.Ports, start: r.StartTime, offered: true}
	lease := l.ports.Adopt
	if r.Origin == originOutside {
		c.origin, lease = Outside, l.ports.Outside
	}
	if err := lease(r.Instance, r.Ports); err != nil {
		l.Logger.Error("the ports of an adopted process are leased twice", "instance", r.Instance, "error", err)
	}
	if r.PortMode == port.Passed {
		l.regain(r, p, listeners)
	}
	i.child = c
	how := asked{} // an outside process says itself how it is
	if c.origin != Outside {
		how = l.asked(m, adoptedNeed(r.Instance, r.Module), r)
	}
	if r.Ready {
		how.ready.Kind = readyAlready
		c.state, c.ready = process.Ready, time.Now()
		l.ports.Listening(r.Instance)
		c.stayWithdrawn(r.Withdrawn, &how)
		l.awaitRecovery(i)
	}
	l.Figures.Count(metrics.Adoption)
	l.Logger.Info("process adopted", "instance", r.Instance, "pid", p.Main().PID, "ready", r.Ready)
	c.adoptChild(p, how)
	l.happenedTo(i, ProcessAdopted, "")
	switch { // the agent before did not see the end of its stop
	case l.isDrained:
		l.evict(i, drainedAway)
	case i.held:
		l.stop(i, "held by an operator", true)
	case r.Stopping != "":
		l.stop(i, r.Stopping, true)
	}
	l.settle(i)
}

// defaultStartTimeout is for an adopted process whose module has left the
// catalogue.
const defaultStartTimeout = 30 * time.Second

// perhapsStarted tells whether the agent before may have started the process of a
// record and not come to say so. In a cgroup it would be found, and is ended.
func perhapsStarted(r state.Record) bool {
	return r.Phase == state.Starting && !r.Gone && r.Identity.Cgroup == ""
}

// open opens the recorded process if it certainly is the one. The error is
// process.ErrGone if it certainly is not there any more.
func open(r state.Record) (*process.Process, error) {
	switch {
	case r.Gone || r.Phase == state.Starting:
		return nil, process.ErrGone
	case r.Main.PID != 0:
		return process.AdoptMain(r.Identity, r.Main)
	case r.Origin != originOutside:
		return process.Adopt(r.Identity)
	}
	p, err := process.Watch(r.Identity.PID) // its tree stays none of ours
	if err == nil && p.Identity() != r.Identity {
		p.Close()
		return nil, process.ErrGone
	}
	return p, err
}

// emptyCgroup ends what an ended leader left, or what was started in the
// moment in which the agent was killed: a replacement must find nobody there.
func (l *loop) emptyCgroup(within context.Context, r state.Record) {
	if r.Gone || r.Identity.Cgroup == "" {
		return
	}
	if left, err := process.EmptyCgroup(within, r.Identity.Cgroup); err != nil {
		l.Logger.Error("processes of an ended instance have not ended yet", "instance", r.Instance, "pids", left, "error", err)
	}
}
