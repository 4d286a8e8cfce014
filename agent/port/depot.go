package port

// Depot keeps sockets that are passed on beyond the life of this program, whatever
// ends it, by their ports: the next program is given them, and has the office Inherit
// them. Neither call waits. Put again for a port it keeps the newer socket; the
// descriptor stays the office's.
type Depot interface {
	Put(port, fd int)
	Drop(port int)
}

// Deposit has the sockets of Passed leases kept in d as well, if it is not nil. It is
// called before the first lease.
func (o *Office) Deposit(d Depot) { o.depot = d }

// put keeps the socket of a lease that is Passed.
func (o *Office) put(l *lease) {
	if o.depot != nil && l.mode == Passed && l.socket != none {
		o.depot.Put(l.Port, int(l.socket))
	}
}

// closeSocket ends the socket of a lease, if there is one.
func (o *Office) closeSocket(l *lease) {
	if o.depot != nil && l.mode == Passed && l.socket != none {
		o.depot.Drop(l.Port)
	}
	l.socket.close()
	l.socket = none
}
