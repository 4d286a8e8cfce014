package port

import "os"

// Inherit has Adopt and Outside find these sockets, by port, which the program held
// that this process was before. Files that are no sockets are not looked at.
func (o *Office) Inherit(files map[int]*os.File) {
	o.inherited = make(map[int]socket, len(files))
	for number, f := range files {
		o.inherited[number] = socketOf(f)
	}
}

// Settle closes what was inherited and belongs to no lease.
func (o *Office) Settle() {
	for number, s := range o.inherited {
		if o.depot != nil {
			o.depot.Drop(number)
		}
		s.close()
	}
	o.inherited = nil
}

// inherit is the socket that was inherited for a port, or none.
func (o *Office) inherit(number int) socket {
	s, ok := o.inherited[number]
	if !ok {
		return none
	}
	delete(o.inherited, number)
	return s
}

// Duplicates are the sockets of all leases, by port, opened once more for the caller.
func (o *Office) Duplicates() map[int]*os.File {
	all := make(map[int]*os.File)
	for number, l := range o.byNumber {
		if f := l.socket.dup(); f != nil {
			all[number] = f
		}
	}
	return all
}
