package port

import (
	"slices"

	"github.com/allexgo/machine-agent/lan/table"
)

// This file is about ports whose sockets listen from the moment of choice and are
// passed on, from one process of an instance to the next.

// backlog is how many connections wait for a process to accept them, if the
// system allows so many: those that come while there is no process, too.
const backlog = 4096

// open holds a port in the way of mode.
func open(number int, mode Mode) (socket, error) {
	try := hold
	if mode == Released {
		try = holdAlone // what its program is going to do
	}
	s, err := try(number)
	if err != nil || mode != Passed {
		return s, err
	}
	if err := s.listen(); err != nil {
		s.close()
		return none, err
	}
	return s, nil
}

// Socket is one that listens on a leased port. The descriptor is the office's and
// is there as long as the lease; whoever wants it longer makes a copy.
type Socket struct {
	Protocol Protocol
	FD       int
}

// Sockets are those that the process of an instance gets, in the order of
// protocols; none unless its mode is Passed.
func (o *Office) Sockets(instance string) []Socket {
	var all []Socket
	for _, l := range o.byInstance[instance] {
		if l.mode == Passed && l.socket != none {
			all = append(all, Socket{l.Protocol, int(l.socket)})
		}
	}
	slices.SortFunc(all, func(a, b Socket) int { return int(a.Protocol - b.Protocol) })
	return all
}

// Passes tells whether an instance has leases with sockets that are passed on.
func (o *Office) Passes(instance string) bool {
	return slices.ContainsFunc(o.byInstance[instance], func(l *lease) bool { return l.mode == Passed && l.socket != none })
}

// Inode is the number by which the operating system tells the socket that holds
// this port from others; 0 if there is none, or if it does not tell.
func (o *Office) Inode(number int) uint64 {
	if l := o.byNumber[number]; l != nil {
		return l.socket.inode()
	}
	return 0
}

// Regain gives the office the socket that listens on a port of an adopted
// instance. The descriptor is the office's from then on.
func (o *Office) Regain(instance string, number, fd int) {
	l := o.byNumber[number]
	if l == nil || l.Instance != instance || l.State != StateAdopted {
		socket(fd).close()
		return
	}
	l.socket.close() // which is the same, if it was inherited
	l.mode, l.State, l.socket = Passed, StateReserved, socket(fd)
	o.put(l)
}

// Reuse has an adopted instance go on with the sockets that were inherited for its
// ports and that are passed on. It returns the ports of which there is none.
func (o *Office) Reuse(instance string) (missing []int) {
	for _, l := range o.byInstance[instance] {
		switch {
		case l.State != StateAdopted:
		case l.socket == none:
			missing = append(missing, l.Port)
		default:
			l.mode, l.State = Passed, StateReserved
			o.put(l)
		}
	}
	return missing
}

// Keep ends the leases of an instance as Release does, but for those whose socket
// listens: they are for its next process.
func (o *Office) Keep(instance string) {
	for _, l := range slices.Clone(o.byInstance[instance]) {
		if l.mode == Passed && l.socket != none {
			l.State = StateKept
		} else {
			o.release(l)
		}
	}
}

// takeUp makes what was kept for an instance leases of its next process, as far as
// r asks for it, and ends the rest.
func (o *Office) takeUp(r Request) table.Ports {
	var got table.Ports
	for _, l := range slices.Clone(o.byInstance[r.Instance]) {
		if l.State != StateKept {
			continue
		}
		fixed := *of(&r.Fixed, l.Protocol)
		if r.Mode == Passed && slices.Contains(r.Protocols, l.Protocol) && (fixed == 0 || fixed == l.Port) {
			l.State = StateReserved
			*of(&got, l.Protocol) = l.Port
		} else {
			o.release(l)
		}
	}
	return got
}
