package agent

import (
	"slices"
	"time"

	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
)

// This file is about the listening sockets that are passed from one process of an
// instance to the next (design section 6): as long as the next one is due nobody
// who connects is refused, and when none is due nobody is left to wait for it.

// reopenWithin is how long a need may take to open again after its process has
// ended. It is a matter of round trips, unless the LAN manager is very busy.
const reopenWithin = 5 * time.Second

// keepSockets lets the passed sockets of an instance go when no process is due
// that would accept on them.
func (l *loop) keepSockets(i *instance) {
	if !l.ports.Passes(i.name) {
		return
	}
	switch due := l.due(i); {
	case due && i.child == nil && time.Now().Before(i.reopens):
		l.wakeUp(i, i.reopens)
	case due:
	case i.child == nil:
		l.ports.Release(i.name)
	case i.child.process != nil: // else it is just being started with them
		l.ports.LetGo(i.name)
	}
}

// due tells whether the instance has a process that serves or may come to, or
// gets one without a wait.
func (l *loop) due(i *instance) bool {
	if i.serving() || i.child != nil && i.child.state == process.Withdrawn {
		return true
	}
	if !l.up || l.shutdown {
		return false
	}
	for _, rule := range []func(*loop, *instance) (verdict, bool){
		(*loop).drained, (*loop).held, (*loop).otherAddress, (*loop).capacity, (*loop).notCatalogued, (*loop).backoff,
	} {
		if _, against := rule(l, i); against {
			return false
		}
	}
	if i.need != nil && (i.bid == nil || !i.bid.pending) {
		return true
	}
	elsewhere := i.service != nil && !i.reported
	return !elsewhere && time.Now().Before(i.reopens)
}

// regain has the sockets outlive an adopted process that the agent before passed to
// it. Those that were not inherited are fetched back from the process.
func (l *loop) regain(r state.Record, p *process.Process, listeners func() ([]process.Listener, error)) {
	missing := l.ports.Reuse(r.Instance)
	if len(missing) == 0 {
		return
	}
	var fds map[int]int
	sockets, err := listeners()
	if err == nil {
		fds, err = p.Take(on(sockets, missing))
	}
	for number, fd := range fds {
		l.ports.Regain(r.Instance, number, fd)
	}
	if err != nil && !l.unregained {
		l.unregained = true
		l.Logger.Warn("the sockets that were passed to an adopted process can not be fetched back; when it ends, connects are refused until the next one listens. This is not said again of others",
			"instance", r.Instance, "pid", r.Identity.PID, "error", err)
	}
}

// on are those of the sockets that listen on one of the ports.
func on(sockets []process.Listener, ports []int) []process.Listener {
	var found []process.Listener
	for _, s := range sockets {
		if slices.Contains(ports, int(s.Address.Port())) {
			found = append(found, s)
		}
	}
	return found
}
