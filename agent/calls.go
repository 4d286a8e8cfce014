package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/allexgo/machine-agent/agent/config"
	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// Process tells about one instance. Errors: NotFound.
func (a *Agent) Process(ctx context.Context, instance string) (Process, error) {
	return ask(ctx, a, func(l *loop) (Process, error) {
		i, err := l.known(instance)
		if err == nil && !i.told() {
			err = notFound(instance) // the LAN knows the name, this machine has nothing of it
		}
		if err != nil {
			return Process{}, err
		}
		return l.snapshot(i), nil
	})
}

// told tells whether there is anything to tell of the instance's process.
func (i *instance) told() bool {
	return i.child != nil || i.lastExit != nil || i.held || i.backoff.failures > 0
}

// Processes tells about all instances that have, had or are held from having a
// process, ordered by name.
func (a *Agent) Processes(ctx context.Context) (List[Process], error) {
	return listed(ctx, a, (*instance).told, (*loop).snapshot)
}

// listed tells about all instances of which there is something to tell, ordered
// by name.
func listed[T any](ctx context.Context, a *Agent, there func(*instance) bool, show func(*loop, *instance) T) (List[T], error) {
	return ask(ctx, a, func(l *loop) (List[T], error) {
		all := List[T]{At: l.news.journal.Position()}
		for _, name := range slices.Sorted(maps.Keys(l.instances)) {
			if i := l.instances[name]; there(i) {
				all.Items = append(all.Items, show(l, i))
			}
		}
		return all, nil
	})
}

// known finds an instance that exists.
func (l *loop) known(name string) (*instance, error) {
	if i := l.instances[name]; i != nil {
		return i, nil
	}
	return nil, notFound(name)
}

// snapshot is what is told of an instance.
func (l *loop) snapshot(i *instance) Process {
	p := Process{
		Instance: i.name, Module: i.lastModule, State: process.Ended, Held: i.held,
		Failures: i.backoff.failures, CrashLoop: i.backoff.looping(), FailingSince: i.backoff.since,
		LastExit: i.lastExit, LastReason: i.lastReason,
	}
	if time.Now().Before(i.backoff.until) {
		p.BackoffUntil = i.backoff.until
	}
	if c := i.child; c != nil {
		p.State, p.Place, p.Origin = c.state, l.place(i), c.origin
		p.PID, p.StartTime, p.Ports, p.StatusText, p.Outdated = c.pid(), c.start, c.ports, c.statusText(), l.outdated(i)
		p.Reason = c.reason
		if c.origin != Outside {
			p.LogFile = l.Store.LogPath(i.name)
		}
	}
	return p
}

// ReportDown takes an instance off the LAN's table and stops its process.
// Errors: NotFound.
func (a *Agent) ReportDown(ctx context.Context, instance, reason string) (Process, error) {
	return ask(ctx, a, func(l *loop) (Process, error) {
		i, err := l.known(instance)
		if err != nil {
			return Process{}, err
		}
		if i.child == nil {
			return Process{}, notRunning(i)
		}
		if reason == "" {
			reason = "reported down"
		}
		l.stop(i, reason, false)
		return l.snapshot(i), nil
	})
}

func notRunning(i *instance) *Error {
	message := "instance %q has no process on this machine now; `agentctl needs` says why"
	if !i.asked() { // of which that says nothing
		message = "instance %q has no process on this machine now, and the LAN does not need it; `agentctl needs add` makes it needed"
	}
	return &Error{Kind: WrongState, Reason: NotRunning,
		Message:  fmt.Sprintf(message, i.name),
		Metadata: map[string]string{"instance": i.name}}
}

// Stop holds an instance on this machine and stops its process. The hold is
// on disk when it returns. Errors: Invalid.
func (a *Agent) Stop(ctx context.Context, instance string) (Process, error) {
	if _, err := state.FileName(instance); err != nil {
		return Process{}, invalid("instance", "%v", err)
	}
	return changeKept(ctx, a, func(l *loop) (Process, error) {
		if held := l.holds(); !slices.Contains(held, instance) && !state.RoomFor(append(held, instance)) {
			return Process{}, &Error{Kind: Exhausted, Message: fmt.Sprintf("instance %q is not stopped: there is no room for one more hold; `agentctl start` lifts holds", instance)}
		}
		i := l.get(instance)
		if !i.held {
			l.happenedTo(i, InstanceHold, "")
		}
		i.held = true
		if i.child != nil {
			l.stop(i, "stopped by an operator", true)
		} else {
			l.cancelBid(i)
		}
		l.settle(i)
		return l.snapshot(i), nil
	})
}

// Start lifts the hold of an instance and forgets its back-off. The hold is
// off the disk when it returns. Errors: NotFound.
func (a *Agent) Start(ctx context.Context, instance string) (Process, error) {
	return changeKept(ctx, a, func(l *loop) (Process, error) {
		i, err := l.known(instance)
		if err != nil {
			return Process{}, err
		}
		if i.held {
			l.happenedTo(i, InstanceLetGo, "")
		}
		i.held, i.backoff, i.rebid, i.shortage = false, backoff{}, pause{}, pause{}
		l.settle(i)
		return l.snapshot(i), nil
	})
}

// Restart stops the process of an instance; a new one starts without a wait.
// Errors: NotFound, WrongState.
func (a *Agent) Restart(ctx context.Context, instance string) (Process, error) {
	return ask(ctx, a, func(l *loop) (Process, error) {
		i, err := l.known(instance)
		switch {
		case err != nil:
			return Process{}, err
		case i.child == nil:
			return Process{}, notRunning(i)
		case i.child.origin == Outside:
			return Process{}, &Error{Kind: WrongState, Reason: OutsideProcess,
				Message:  fmt.Sprintf("instance %q was not started by the agent, which can not start it again; use report-down to take it off the LAN", instance),
				Metadata: map[string]string{"instance": instance}}
		}
		if err := l.irreplaceable(i); err != nil {
			return Process{}, err
		}
		i.rebid = pause{}
		l.forgive(i)
		l.stop(i, "restarted by an operator", true)
		return l.snapshot(i), nil
	})
}

// irreplaceable tells why no other process would start in place of that of an instance;
// nil if one would.
func (l *loop) irreplaceable(i *instance) error {
	about := map[string]string{"instance": i.name}
	const inPlace = ", so that no other process would start in its place"
	if !l.up {
		return &Error{Kind: Unavailable, Reason: NoLANManager, Metadata: about,
			Message: fmt.Sprintf("instance %q runs on: there is no session with a LAN manager%s; `agentctl status` says why, and report-down stops it all the same", i.name, inPlace)}
	}
	if i.place(l.address()) == PlaceUnneeded {
		return &Error{Kind: WrongState, Reason: NotNeeded, Metadata: about,
			Message: fmt.Sprintf("nobody needs instance %q%s; use report-down to stop it", i.name, inPlace)}
	}
	if why, can := l.canRun(i.lastModule); !can {
		about["module"] = i.lastModule
		return &Error{Kind: WrongState, Reason: NotCatalogued, Metadata: about,
			Message: fmt.Sprintf("instance %q runs on: %s", i.name, why)}
	}
	return nil
}

// Signal sends a signal, by its name, to the main process of an instance. Errors:
// Invalid, NotFound, WrongState.
func (a *Agent) Signal(ctx context.Context, instance, name string) error {
	sig, err := process.ParseSignal(name)
	if err != nil {
		return invalid("signal", "%v", err)
	}
	_, err = ask(ctx, a, func(l *loop) (struct{}, error) {
		i, err := l.known(instance)
		switch {
		case err != nil:
			return struct{}{}, err
		case i.child == nil || i.child.process == nil:
			return struct{}{}, notRunning(i)
		}
		err = i.child.process.Signal(sig)
		if errors.Is(err, process.ErrGone) {
			err = notRunning(i)
		}
		return struct{}{}, err
	})
	return err
}

// Needs tells about every need that the LAN shows, with our decision, and
// about holds without one; ordered by instance.
func (a *Agent) Needs(ctx context.Context) (List[NeedDecision], error) {
	looks := make(map[string]needLook)
	all, err := listed(ctx, a, (*instance).asked, func(l *loop, i *instance) NeedDecision {
		d := l.needDecision(i)
		if look, ok := l.look(i, d.Decision); ok {
			looks[i.name] = look
		}
		return d
	})
	if err != nil || len(looks) == 0 {
		return all, err
	}
	done, err := a.turn(ctx)
	if err != nil {
		return List[NeedDecision]{}, err
	}
	defer done()
	takers := takersOf(looks)
	for n := range all.Items {
		if look, ok := looks[all.Items[n].Need.InstanceName]; ok {
			all.Items[n].Detail += look.more(takers)
		}
	}
	return all, nil
}

// Services tells about every service of the LAN, ordered by instance. Without a
// session it is what the LAN manager said last.
func (a *Agent) Services(ctx context.Context) (List[Service], error) {
	return listed(ctx, a, func(i *instance) bool { return i.service != nil }, (*loop).serviceOf)
}

func (l *loop) needDecision(i *instance) NeedDecision {
	v := l.decide(i)
	if i.need == nil && i.service == nil && i.held {
		v = verdict{Decision: DecisionHeld, detail: "held by an operator; the LAN shows no need of that name"}
	}
	d := NeedDecision{Need: table.Need{InstanceName: i.name}, Decision: v.Decision, Detail: v.detail, Retry: v.retry}
	switch {
	case i.need != nil:
		d.Need = *i.need
	case i.service != nil:
		d.Need.ModuleName, d.Need.PropertyHash = i.service.ModuleName, i.service.PropertyHash
	}
	if i.service != nil {
		d.ServedAt = i.service.IPAddress
	}
	return d
}

// AddNeed passes a need on to the LAN manager. Errors: Invalid, Unavailable,
// WrongState if the LAN manager refuses.
func (a *Agent) AddNeed(ctx context.Context, n table.Need) error {
	if _, err := state.FileName(n.InstanceName); err != nil {
		return invalid("need.instance", "%v", err)
	}
	if n.ModuleName == "" {
		return invalid("need.module", "is empty; name the module that serves the need")
	}
	return lanError(a.link.AddNeed(ctx, n))
}

// RemoveNeed has the LAN manager forget a need. Errors: Invalid, Unavailable,
// WrongState if the LAN manager refuses.
func (a *Agent) RemoveNeed(ctx context.Context, instance string) error {
	if instance == "" {
		return invalid("instance", "is empty; name the need")
	}
	return lanError(a.link.RemoveNeed(ctx, instance))
}

func lanError(err error) error {
	var rejected *wire.RejectedError
	switch {
	case errors.Is(err, link.ErrNoSession):
		return &Error{Kind: Unavailable, Reason: NoLANManager, Message: err.Error() + "; `agentctl status` says why"}
	case errors.As(err, &rejected):
		return &Error{Kind: WrongState, Reason: LANManagerRefused, Message: "the LAN manager refused: " + rejected.Error(), Metadata: map[string]string{"code": rejected.Code}}
	}
	return err
}

// loopsNamed is how many instances in a crash loop Status names.
const loopsNamed = 10

// Status tells about the agent.
func (a *Agent) Status(ctx context.Context) (Status, error) {
	// These files are not for the loop to look at.
	warnings := Warnings(config.Config{PortRanges: a.PortRanges, LANManager: a.LANManager})
	s, err := a.Pulse(ctx)
	s.Warnings = append(warnings, s.Warnings...)
	return s, err
}

// Pulse is Status without what has to be read from files: it says that the loop
// answers, also while a disk does not.
func (a *Agent) Pulse(ctx context.Context) (Status, error) {
	return ask(ctx, a, func(l *loop) (Status, error) {
		s := a.status()
		s.Drained = l.isDrained
		s.Link = l.linked
		s.Warnings = slices.Concat(s.Warnings, l.strayWarnings(), l.diskWarnings())
		s.Link.Connected = l.up
		elsewhere := false
		for _, i := range l.instances {
			if i.child != nil {
				s.Processes++
			}
			if i.backoff.looping() {
				s.CrashLoops = append(s.CrashLoops, i.name)
			}
			if i.need != nil {
				s.OpenNeeds++
			}
			if i.service != nil {
				s.Services++
				elsewhere = elsewhere || i.service.IPAddress != l.address()
			}
			if i.place(l.address()) == PlaceServed {
				s.ServedHere++
			}
		}
		s.Looping = len(s.CrashLoops)
		slices.Sort(s.CrashLoops)
		s.CrashLoops = s.CrashLoops[:min(s.Looping, loopsNamed)]
		if elsewhere && loopback(l.address()) {
			s.Warnings = append(s.Warnings, fmt.Sprintf("other machines serve in this LAN, but this one answers with %s, which they can not reach; set `address` in the configuration", l.address()))
		}
		return s, nil
	})
}
