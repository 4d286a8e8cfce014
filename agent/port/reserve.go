package port

// This file is leases beside those of instances: a port that somebody wants to
// have for as long as he says. An instance's own calls of Lease, Release and the
// rest do not touch them.

// Reserve holds a port of the range of p for holder, or, if number is not 0, that
// very port, which may lie outside of the range. The errors are those of Lease.
// Unreserve ends it.
func (o *Office) Reserve(p Protocol, number int, holder string) (int, error) {
	r := Request{Mode: Reserved, Protocols: []Protocol{p}}
	*of(&r.Fixed, p) = number
	choose := o.firstFree
	if number != 0 {
		choose = o.fixed
	}
	number, s, err := choose(p, r)
	if err != nil {
		return 0, err
	}
	o.quarantine.end(number)
	o.numbers.add(number)
	o.byNumber[number] = &lease{Lease: Lease{p, number, holder, StateReserved}, mode: Reserved, socket: s}
	return number, nil
}

// Unreserve ends what Reserve began. The port goes into quarantine.
func (o *Office) Unreserve(number int) {
	if l := o.byNumber[number]; l != nil {
		o.drop(l)
		o.quarantine.add(l.Lease, l.stolen)
	}
}

// Has is the lease of a port; false if nobody has it.
func (o *Office) Has(number int) (Lease, bool) {
	l := o.byNumber[number]
	if l == nil {
		return Lease{}, false
	}
	return l.Lease, true
}

// Bindable tells whether a port that nobody has leased could be had now. The
// errors are those of Lease.
func (o *Office) Bindable(number int) error {
	s, err := o.take(TCP, number, Reserved)
	if err == nil {
		s.close()
	}
	return err
}
