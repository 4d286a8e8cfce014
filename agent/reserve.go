package agent

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// This file is the ports that processes reserve beside those of their needs.

const (
	mostReserved  = 256 // ports; each costs a socket, a pidfd and a goroutine
	reservedByOne = 16  // process
)

// reservation is a port that a process holds until it ends.
type reservation struct {
	instance string // that the process is of; empty: none
	process  *process.Process
}

// Reservation is what ReservePort asks for.
type Reservation struct {
	Protocol port.Protocol
	Port     int    // 0: any
	PID      int    // with which it ends
	Instance string // of ours, whose process it is; instead of PID
}

// ReservePort leases a port for a process, until that ends or ReleasePort.
// Errors: NotFound, WrongState, Exhausted, Invalid.
func (a *Agent) ReservePort(ctx context.Context, r Reservation) (PortLease, error) {
	if r.Instance != "" {
		pid, err := ask(ctx, a, func(l *loop) (int, error) {
			i, err := l.known(r.Instance)
			switch {
			case err != nil:
				return 0, err
			case i.child == nil || i.child.pid() == 0:
				return 0, notRunning(i)
			}
			return i.child.pid(), nil
		})
		if err != nil {
			return PortLease{}, err
		}
		r.PID = pid
	}
	p, err := process.Watch(r.PID)
	if err != nil {
		return PortLease{}, &Error{Kind: NotFound, Reason: PIDNotFound,
			Message: fmt.Sprintf("there is no process %d on this machine", r.PID), Metadata: map[string]string{"pid": strconv.Itoa(r.PID)}}
	}
	// Not to be given up halfway: somebody must own p.
	lease, err := ask(context.WithoutCancel(ctx), a, func(l *loop) (PortLease, error) { return l.reserve(r, p) })
	if err != nil {
		p.Close()
	}
	return lease, err
}

func (l *loop) reserve(r Reservation, p *process.Process) (PortLease, error) {
	if l.shutdown {
		return PortLease{}, leaving()
	}
	has := 0
	for _, other := range l.reserved {
		if other.process.Identity() == p.Identity() {
			has++
		}
	}
	if has >= reservedByOne || len(l.reserved) >= mostReserved {
		return PortLease{}, &Error{Kind: Exhausted, Reason: NoPortLeft,
			Message:  fmt.Sprintf("process %d has %d reserved ports, this machine %d; they may have %d and %d: release some", r.PID, has, len(l.reserved), reservedByOne, mostReserved),
			Metadata: map[string]string{"pid": strconv.Itoa(r.PID)}}
	}
	number, err := l.ports.Reserve(r.Protocol, r.Port, reservedFor(r))
	if err != nil {
		return PortLease{}, notReserved(err)
	}
	l.reserved[number] = &reservation{r.Instance, p}
	l.tasks.Go(func() {
		if err := p.AwaitEnd(); !errors.Is(err, process.ErrClosed) {
			l.post(func(l *loop) { l.unreserve(number, p) })
		}
	})
	lease, _ := l.ports.Has(number)
	return PortLease{Lease: lease, PID: r.PID, Listener: ListenerNobody}, nil
}

// reservedFor is the name under which a reserved port is listed.
func reservedFor(r Reservation) string {
	if r.Instance != "" {
		return r.Instance
	}
	return fmt.Sprintf("(pid %d)", r.PID)
}

// notReserved is why a port can not be reserved.
func notReserved(err error) error {
	var taken *port.TakenError
	var exhausted *port.ExhaustedError
	switch {
	case errors.As(err, &taken):
		e := &Error{Kind: WrongState, Reason: PortTaken, Message: err.Error(), Metadata: map[string]string{"port": strconv.Itoa(taken.Port)}}
		if taken.Holder != "" {
			e.Metadata["instance"] = taken.Holder
		}
		return e
	case errors.As(err, &exhausted):
		return &Error{Kind: Exhausted, Reason: NoPortLeft, Message: err.Error()}
	case errors.Is(err, port.ErrNotAPort):
		return invalid("port", "%v", err)
	}
	return err
}

// unreserve gives back a port that a process had reserved.
func (l *loop) unreserve(number int, p *process.Process) {
	if r := l.reserved[number]; r != nil && r.process == p {
		delete(l.reserved, number)
		l.ports.Unreserve(number)
		p.Close()
	}
}

// ReleasePort gives a reserved port back; if instance is set, only one that it
// reserved. Errors: NotFound, Denied.
func (a *Agent) ReleasePort(ctx context.Context, number int, instance string) error {
	_, err := ask(ctx, a, func(l *loop) (struct{}, error) {
		r := l.reserved[number]
		metadata := map[string]string{"port": strconv.Itoa(number)}
		switch {
		case r == nil:
			return struct{}{}, &Error{Kind: NotFound, Reason: PortNotReserved, Metadata: metadata,
				Message: fmt.Sprintf("nobody has reserved port %d; `agentctl ports` shows who has which, and those of an instance come back when it ends", number)}
		case instance != "" && r.instance != instance:
			return struct{}{}, &Error{Kind: Denied, Reason: CallerNotAllowed, Metadata: metadata,
				Message: fmt.Sprintf("port %d was not reserved by instance %q; release it as its holder, or as an operator", number, instance)}
		}
		l.unreserve(number, r.process)
		return struct{}{}, nil
	})
	return err
}

// PortCheck is what there is to say of a port.
type PortCheck struct {
	Free   bool
	Lease  *PortLease // nil if there is none
	Detail string     // who has it; empty if it is free
}

// CheckPort tells whether a port is free, and if not, who has it. Errors: Invalid.
func (a *Agent) CheckPort(ctx context.Context, number int) (PortCheck, error) {
	leases, err := a.Ports(ctx)
	if err != nil {
		return PortCheck{}, err
	}
	for _, lease := range leases {
		if lease.Port != number || lease.State == port.StateQuarantined {
			continue
		}
		detail := fmt.Sprintf("leased to %s", lease.Instance)
		if lease.Detail != "" {
			detail += "; " + lease.Detail
		}
		return PortCheck{Lease: &lease, Detail: detail}, nil
	}
	if holders, err := a.listening(ctx, number); err != nil || holders != "" {
		return PortCheck{Detail: holders}, err
	}
	return ask(ctx, a, func(l *loop) (PortCheck, error) {
		err := l.ports.Bindable(number)
		var taken *port.TakenError
		switch {
		case errors.As(err, &taken):
			return PortCheck{Detail: "some program has bound it and does not listen, or a connection of this machine uses it"}, nil
		case errors.Is(err, port.ErrNotAPort):
			return PortCheck{}, invalid("port", "%v", err)
		case err != nil:
			return PortCheck{Detail: err.Error()}, nil
		}
		return PortCheck{Free: true}, nil
	})
}

// listening tells who listens on a port; empty: nobody of whom the system tells.
func (a *Agent) listening(ctx context.Context, number int) (string, error) {
	done, err := a.turn(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	sockets, err := process.Listeners(number)
	if err != nil || len(sockets) == 0 {
		return "", nil
	}
	return "held by " + named(sockets, process.Holders(sockets)), nil
}

// unreserveOwn ends the reservations of ports that their process registers: from now on
// it has them as the ports of its instance.
func (l *loop) unreserveOwn(p *process.Process, ports table.Ports) {
	for _, number := range numbers(ports) {
		if r := l.reserved[number]; r != nil && p != nil {
			if its, ours := r.process.Identity(), p.Main(); its.PID == ours.PID && its.StartTime == ours.StartTime {
				l.unreserve(number, r.process)
			}
		}
	}
}
