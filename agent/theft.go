package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/allexgo/machine-agent/agent/metrics"
	"github.com/allexgo/machine-agent/agent/probe"
	"github.com/allexgo/machine-agent/agent/process"
)

// This file is about leased ports that turn out to be another program's: the try to
// start a process on one ends at once, is nobody's failure, and the next one gets
// another port.

// theft is that a port which is leased to a process is another program's.
type theft struct {
	port int
	by   string // in words
}

func (t *theft) Error() string {
	return fmt.Sprintf("port %d is that of another program: %s", t.port, t.by)
}

// mostThefts is how many starts in a row may be robbed before it counts as a failure
// of the instance: whose server hides from its own tree looks like a thief each time.
const mostThefts = 10

// lookForThieves is how often the ports of a process that is not ready are looked
// at. Once it accepts they are looked at in any case.
const lookForThieves = 250 * time.Millisecond

// errNobody is that nobody listens on a port on which somebody did.
var errNobody = errors.New("who accepted a moment ago does not listen any more")

// listener looks who listens on a port where a connection to host meets it: nil if
// it is a process of the tree, a *theft if it is another program, errNobody if
// nobody does. What can not be known is nobody's fault, and nil.
func (how asked) listener(p *process.Process, port int) error {
	host, _ := netip.ParseAddr(how.host) // it is an address
	sockets, err := process.Met(host, port)
	if err != nil {
		return nil
	}
	if len(sockets) == 0 {
		return errNobody
	}
	return how.foreign(p, port, sockets)
}

// foreign is a *theft if none of the sockets, of which there is one, is the
// process's or one of ours.
func (how asked) foreign(p *process.Process, port int, sockets []process.Listener) error {
	if slices.ContainsFunc(sockets, func(s process.Listener) bool { return s.Inode == how.own[port] }) {
		return nil
	}
	if owns, err := p.Owns(sockets); owns || err != nil {
		return nil
	}
	return &theft{port, named(sockets, process.Holders(sockets))}
}

// owner is for a port that has just accepted: it must be the process's.
func (how asked) owner(p *process.Process) probe.Owner {
	return func(port int) error { return how.listener(p, port) }
}

// unstolen is for a port that need not be in use.
func (how asked) unstolen(p *process.Process) probe.Owner {
	return func(port int) error {
		if err := how.listener(p, port); err != errNobody {
			return err
		}
		return nil
	}
}

// still tells whether a process that is ready can be offered: none of its ports is
// a stranger's. It may be called from any goroutine.
func (how asked) still(p *process.Process) error {
	for _, port := range numbers(how.ports) {
		if err := how.unstolen(p)(port); err != nil {
			return err
		}
	}
	return nil
}

// watchThieves has robbed called as soon as a port is seen to be another program's,
// until ctx ends.
func (how asked) watchThieves(ctx context.Context, p *process.Process, robbed func(error)) {
	look := time.NewTicker(lookForThieves)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		if err := how.still(p); err != nil {
			robbed(err)
			return
		}
	}
}

// robbed tells whether a process that has ended could not have its ports, because
// another program listens on one or has bound it; nil if that is not to be seen.
func (how asked) robbed(p *process.Process) *theft {
	for _, port := range numbers(how.ports) {
		listening, err := process.Listeners(port)
		bound, err2 := process.Bound(port)
		if err != nil || err2 != nil {
			continue
		}
		sockets := slices.DeleteFunc(append(listening, bound...), func(s process.Listener) bool { return s.Inode == how.own[port] })
		var t *theft
		if len(sockets) > 0 && errors.As(how.foreign(p, port, sockets), &t) {
			return t
		}
	}
	return nil
}

// owned are the sockets on which a process listens.
func owned(p *process.Process) ([]process.Listener, error) {
	sockets, err := process.Listeners(0)
	if err != nil {
		return nil, err
	}
	return p.Owned(sockets)
}

// where tells in words where a process listens, if nobody meets it there; empty if
// somebody may, or if that can not be known.
func (how asked) where(p *process.Process) string {
	sockets, err := owned(p)
	if err != nil {
		return ""
	}
	return how.amiss(sockets)
}

// listening tells in words where a process listens, as a question that may be asked
// from any goroutine.
func listening(p *process.Process) func() string {
	return func() string {
		sockets, err := owned(p)
		switch {
		case err != nil:
			return "where the process listens is not known: " + err.Error()
		case len(sockets) == 0:
			return "the process listens on no port"
		}
		return "the process listens on " + addresses(sockets)
	}
}

// stolen ends the try to start a process, or to offer it, on a port that is
// another program's.
func (l *loop) stolen(i *instance, t *theft) {
	c := i.child
	l.robbed(i, t)
	if c.origin == Outside {
		l.withdraw(i, t.Error())
		return
	}
	c.ready = time.Time{}
	l.stop(i, t.Error(), i.thefts <= mostThefts)
}

// robbed takes note of a theft.
func (l *loop) robbed(i *instance, t *theft) {
	i.thefts++
	l.Figures.Count(metrics.PortStolen)
	l.ports.Stolen(i.name, t.port)
	l.Logger.Warn("a port is stolen", "instance", i.name, "pid", i.child.pid(), "port", t.port, "by", t.by)
}

// onStolen is told by the keeper of a process that is not ready.
func (l *loop) onStolen(c *child, t *theft) {
	if c.state == process.Starting {
		l.stolen(l.instances[c.name], t)
	}
}

// still is whether a process can still be offered, for a LAN manager that is told of
// it, as a question that may be asked from any goroutine.
func (l *loop) still(c *child) func() error {
	p, how := c.process, asked{host: l.probeHost(), ports: c.ports, own: make(map[int]uint64)}
	for _, n := range numbers(c.ports) {
		how.own[n] = l.ports.Inode(n)
	}
	return func() error { return how.still(p) }
}
