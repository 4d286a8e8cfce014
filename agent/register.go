package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/lan/table"
)

// Owner tells which of our instances the process of that pid belongs to.
func (a *Agent) Owner(ctx context.Context, pid int) (Owner, error) {
	lineage, err := process.LineageOf(pid)
	if err != nil {
		return Owner{}, nil // it is gone; whoever asks will find that out
	}
	return ask(ctx, a, func(l *loop) (Owner, error) {
		for _, i := range l.instances {
			if i.child != nil && i.child.process != nil && lineage.Within(i.child.process.Identity()) {
				return Owner{Instance: i.name, Operator: i.child.module != nil && i.child.module.Operator}, nil
			}
		}
		return Owner{}, nil
	})
}

// Roster is another number whenever an instance has got or lost its process: as long
// as it is what it was before Owner was asked, the answer stands.
func (a *Agent) Roster() uint64 { return a.roster.Load() }

// Register takes note that a process is up (design section 5). Errors:
// Invalid, NotFound, Exists, Denied, WrongState.
func (a *Agent) Register(ctx context.Context, r Registration) (Process, error) {
	if r.Caller != "" && (r.Instance == "" || r.Instance == r.Caller) {
		return a.registerChild(ctx, r)
	}
	if r.Caller != "" && !r.Privileged {
		return Process{}, denied(r, fmt.Sprintf("a process of instance %q may register only itself; leave instance empty", r.Caller))
	}
	return a.registerOutside(ctx, r)
}

// registerChild takes the word of a child for being up, and looks at the ports
// that it says it opened if they are not those that it was given.
func (a *Agent) registerChild(ctx context.Context, r Registration) (Process, error) {
	type answer struct {
		known Process
		of    *process.Process
	}
	before, err := ask(ctx, a, func(l *loop) (answer, error) {
		i, err := l.runs(r.Caller)
		if err == nil {
			err = i.keepsModule(r.Module)
		}
		if err != nil {
			return answer{}, err
		}
		if overlay(i.child.ports, r.Ports) == i.child.ports {
			l.hear(i, r.StatusText)
		}
		return answer{l.snapshot(i), i.child.process}, nil
	})
	if err != nil || overlay(before.known.Ports, r.Ports) == before.known.Ports {
		return before.known, err
	}
	if err := listensOn(before.of, r.Ports); err != nil {
		return Process{}, err
	}
	var k *keeper
	p, err := ask(ctx, a, func(l *loop) (Process, error) {
		i, err := l.runs(r.Caller)
		if err != nil {
			return Process{}, err
		}
		if i.child.process != before.of {
			return Process{}, notRunning(i) // it ended meanwhile
		}
		if err := l.movePorts(i, overlay(i.child.ports, r.Ports)); err != nil {
			return Process{}, err
		}
		k = i.child.keeper
		l.hear(i, r.StatusText)
		return l.snapshot(i), nil
	})
	if err != nil {
		return p, err
	}
	if err := k.save(func(s *state.Record) { s.Ports = p.Ports }); err != nil {
		a.Logger.Warn("the ports of a process could not be recorded; it is tried again", "instance", r.Caller, "pid", p.PID, "error", err)
	}
	return p, nil
}

// runs finds an instance that has a started process.
func (l *loop) runs(name string) (*instance, error) {
	i, err := l.known(name)
	if err == nil && (i.child == nil || i.child.process == nil) {
		err = notRunning(i)
	}
	return i, err
}

// hear takes note that a child said that it is up.
func (l *loop) hear(i *instance, status string) {
	i.child.status = status
	select {
	case <-i.child.registered:
	default:
		l.happenedTo(i, ProcessRegistered, status)
	}
	i.child.register()
	l.comeBack(i)
	l.settle(i)
}

// comeBack has an outside process offered again that was withdrawn and has registered
// once more. That of a drained machine stays away until Resume.
func (l *loop) comeBack(i *instance) {
	c := i.child
	if c.origin == Outside && !c.drained && c.state == process.Withdrawn && l.move(c, process.EvReady) == nil {
		c.reason = ""
		l.happenedTo(i, ProcessReady, "it registered again")
	}
}

// movePorts gives a process the ports that it really has. If the LAN knows the
// old ones, its record goes and comes again. The caller settles the instance.
func (l *loop) movePorts(i *instance, ports table.Ports) error {
	l.unreserveOwn(i.child.process, ports)
	if err := l.ports.Outside(i.name, ports); err != nil {
		return portTaken(err)
	}
	if i.child.offered {
		known := i.child.ports
		i.ghost = &known
	}
	i.child.ports = ports
	return nil
}

// overlay is what a child was given with what it says that it really opened.
func overlay(given, opened table.Ports) table.Ports {
	for _, p := range []struct{ to, from *int }{{&given.TCP, &opened.TCP}, {&given.HTTP, &opened.HTTP}, {&given.WS, &opened.WS}} {
		if *p.from != 0 {
			*p.to = *p.from
		}
	}
	return given
}

// registerOutside takes in a process that the agent did not start.
func (a *Agent) registerOutside(ctx context.Context, r Registration) (Process, error) {
	if r.PID == 0 {
		r.PID = r.CallerPID
	}
	if _, err := state.FileName(r.Instance); err != nil {
		return Process{}, invalid("instance", "%v", err)
	}
	m, err := a.mayRegister(r)
	if err != nil {
		return Process{}, err
	}
	known, err := ask(ctx, a, func(l *loop) (Process, error) { return l.knownOutside(r), nil })
	if err != nil || known.PID != 0 {
		return known, err
	}
	p, err := process.Watch(r.PID)
	if err != nil {
		return Process{}, &Error{Kind: NotFound, Reason: PIDNotFound,
			Message: fmt.Sprintf("there is no process %d on this machine", r.PID), Metadata: map[string]string{"pid": strconv.Itoa(r.PID)}}
	}
	if err := listensOn(p, r.Ports); err != nil {
		p.Close()
		return Process{}, err
	}
	record := state.Record{
		Instance: r.Instance, Module: r.Module, Phase: state.Running, Identity: p.Identity(),
		StartTime: time.Now(), Ports: r.Ports, Origin: originOutside, Ready: true, Stop: module.DefaultStop,
	}
	if m != nil {
		record.Stop, record.ModuleMark = m.Stop, m.Mark()
	}
	k := a.newKeeper(record)
	var owner *keeper
	// Not to be given up halfway: somebody must own p.
	out, err := ask(context.WithoutCancel(ctx), a, func(l *loop) (Process, error) {
		var err error
		owner, err = l.takeIn(k, p, m, r)
		if err != nil {
			return Process{}, err
		}
		return l.snapshot(l.instances[r.Instance]), nil
	})
	if owner != k {
		p.Close()
	}
	if err != nil {
		return out, err
	}
	if err := owner.save(func(s *state.Record) { s.Ports = r.Ports }); err != nil {
		a.Logger.Warn("a registered process could not be recorded; the next agent will not know it", "instance", r.Instance, "pid", r.PID, "error", err)
	}
	return out, nil
}

// knownOutside answers a registration that changes nothing but the status text; the
// zero Process if there is more to be done.
func (l *loop) knownOutside(r Registration) Process {
	i := l.instances[r.Instance]
	if i == nil || i.child == nil || i.child.origin != Outside || i.child.state != process.Ready ||
		i.keepsModule(r.Module) != nil || i.child.pid() != r.PID || i.child.ports != r.Ports || !i.child.process.Lives() {
		return Process{}
	}
	if i.child.status != r.StatusText {
		i.child.status = r.StatusText
		l.touch(i)
	}
	return l.snapshot(i)
}

// takeIn makes an outside process the one of its instance, and returns its
// keeper: k, which then owns p, or the one that it had before.
func (l *loop) takeIn(k *keeper, p *process.Process, m *module.Module, r Registration) (*keeper, error) {
	if l.shutdown {
		return nil, leaving()
	}
	for _, other := range l.instances {
		if other.name != r.Instance && other.child != nil && other.child.pid() == r.PID {
			return nil, instanceTaken(other)
		}
	}
	i := l.get(r.Instance)
	defer l.settle(i)
	if i.child != nil {
		return i.child.keeper, l.registerAgain(i, p, r)
	}
	if i.held {
		return nil, &Error{Kind: WrongState, Reason: InstanceHeld,
			Message:  fmt.Sprintf("instance %q is held by an operator; `agentctl start %s` lifts it", i.name, i.name),
			Metadata: map[string]string{"instance": i.name}}
	}
	l.unreserveOwn(p, r.Ports)
	if err := l.ports.Outside(r.Instance, r.Ports); err != nil {
		return nil, portTaken(err)
	}
	i.lastModule = r.Module
	i.child = &child{keeper: k, module: m, origin: Outside, state: process.Ready, ports: r.Ports,
		ready: time.Now(), start: k.record.StartTime, status: r.StatusText}
	i.child.adoptChild(p, asked{}) // it says itself that it is up
	l.happenedTo(i, ProcessRegistered, r.StatusText)
	l.Logger.Info("process registered", "instance", r.Instance, "pid", r.PID)
	return k, nil
}

// registerAgain takes the word of an outside process that is known.
func (l *loop) registerAgain(i *instance, p *process.Process, r Registration) error {
	c := i.child
	if c.origin != Outside || c.process.Identity() != p.Identity() {
		return instanceTaken(i)
	}
	if err := i.keepsModule(r.Module); err != nil {
		return err
	}
	if c.ports != r.Ports {
		if err := l.movePorts(i, r.Ports); err != nil {
			return err
		}
	}
	c.status = r.StatusText
	l.comeBack(i)
	return nil
}

// keepsModule is an error if a known process is registered under another module than
// it has; empty stands for that.
func (i *instance) keepsModule(name string) error {
	switch {
	case name == "" || name == i.lastModule:
		return nil
	case i.lastModule == "":
		return invalid("module", "instance %q is registered under none; stop it before it comes under %q", i.name, name)
	}
	return invalid("module", "instance %q is of module %q; leave it empty, or stop that one before another comes under %q", i.name, i.lastModule, name)
}

func instanceTaken(i *instance) *Error {
	return &Error{Kind: Exists, Reason: InstanceTaken,
		Message:  fmt.Sprintf("instance %q is process %d; stop that one first or choose another name", i.name, i.child.pid()),
		Metadata: map[string]string{"instance": i.name, "pid": strconv.Itoa(i.child.pid())}}
}

// mayRegister tells whether the caller may register that process under that
// module. The module is nil if none is named and none need be.
func (a *Agent) mayRegister(r Registration) (*module.Module, error) {
	if r.PID == 1 || r.PID == os.Getpid() {
		return nil, invalid("pid", "%d is the system's first process or the agent itself, which can not be managed", r.PID)
	}
	m, found := a.modules().Find(r.Module)
	if r.Module != "" && !found {
		return nil, invalid("module", "no module %q in the catalogue of this machine", r.Module)
	}
	if r.Privileged {
		return m, nil
	}
	if r.PID != r.CallerPID {
		return nil, denied(r, fmt.Sprintf("uid %d may register only itself; root and the agent's user may register any process", r.CallerUID))
	}
	if !found {
		return nil, denied(r, fmt.Sprintf("uid %d may register itself only under a module that allows it; name the module", r.CallerUID))
	}
	u, err := user.LookupId(strconv.Itoa(r.CallerUID))
	if err != nil || !slices.Contains(m.Outside, u.Username) {
		return nil, denied(r, fmt.Sprintf("module %q does not allow uid %d to register; add the user to \"outside\": {\"users\": [...]} in %s", r.Module, r.CallerUID, m.File))
	}
	return m, nil
}

func denied(r Registration, message string) *Error {
	return &Error{Kind: Denied, Reason: CallerNotAllowed, Message: message, Metadata: map[string]string{"uid": strconv.Itoa(r.CallerUID)}}
}

// listensOn makes sure that the ports that a process names are its own.
func listensOn(p *process.Process, ports table.Ports) error {
	for _, n := range numbers(ports) {
		ok, err := p.Listens(n)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("looking for the listener of port %d: %w", n, err)
		}
		if !ok {
			pid := p.Main().PID
			return &Error{Kind: WrongState, Reason: PortNotListening,
				Message:  fmt.Sprintf("process %d does not listen on port %d; open it first", pid, n),
				Metadata: map[string]string{"port": strconv.Itoa(n)}}
		}
	}
	return nil
}

func portTaken(err error) error {
	var taken *port.TakenError
	if errors.As(err, &taken) {
		return &Error{Kind: WrongState, Reason: InstanceTaken, Message: err.Error(), Metadata: map[string]string{"port": strconv.Itoa(taken.Port), "instance": taken.Holder}}
	}
	return err
}
