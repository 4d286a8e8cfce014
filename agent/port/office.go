package port

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/allexgo/machine-agent/lan/table"
)

// Office leases ports: one number to one instance, whatever the protocol.
type Office struct {
	inherited  map[int]socket // of the program before us; nil after Settle
	depot      Depot          // nil: none
	ranges     [protocols]Range
	numbers    set // of byNumber, to find a free one quickly
	byNumber   map[int]*lease
	byInstance map[string][]*lease
	quarantine quarantine
}

// lease is a Lease with what the office itself needs.
type lease struct {
	Lease
	mode   Mode
	socket socket
	stolen bool // another program was seen on it
}

// NewOffice makes an office that leases out of these ranges, which the
// configuration has found to be ports and not to overlap. For the time rest after
// its release a port goes to no other instance, if there is another port. Close
// the office.
func NewOffice(tcp, http, ws Range, rest time.Duration) *Office {
	o := &Office{
		byNumber: map[int]*lease{}, byInstance: map[string][]*lease{},
		quarantine: quarantine{rest: rest, byPort: map[int]resting{}},
	}
	for i, r := range []Range{tcp, http, ws} {
		r.Protocol = Protocol(i + 1)
		o.ranges[i] = r
	}
	return o
}

// Lease holds one port of each of r.Protocols for r.Instance, or, with an error,
// none: the fixed one, else the one that is kept for it, else the preferred one
// if it can be had, else the first that is free and has no quarantine, else the
// one that has rested longest. The error is a *TakenError for a fixed port, an
// *ExhaustedError, wraps ErrNotAPort, or is that of the operating system. An
// instance that has leases that are not kept must be released first.
func (o *Office) Lease(r Request) (table.Ports, error) {
	got := o.takeUp(r)
	if has, _ := o.Of(r.Instance); has != got {
		return table.Ports{}, fmt.Errorf("instance %q has ports already (%+v); release them before leasing others", r.Instance, has)
	}
	// Fixed ports go first, lest a free choice for another protocol takes one.
	for _, choose := range []chooser{o.fixed, o.preferred, o.firstFree} {
		for _, p := range r.Protocols {
			if *of(&got, p) != 0 {
				continue
			}
			number, s, err := choose(p, r)
			if err != nil {
				for _, l := range slices.Clone(o.byInstance[r.Instance]) {
					o.drop(l) // nobody has used it
				}
				return table.Ports{}, err
			}
			if number != 0 {
				l := &lease{Lease: Lease{p, number, r.Instance, StateReserved}, mode: r.Mode, socket: s}
				o.add(l)
				o.put(l)
				*of(&got, p) = number
			}
		}
	}
	return got, nil
}

// chooser is one way to find a port of protocol p for a request: its number and
// its socket, 0 if this way finds none.
type chooser func(p Protocol, r Request) (int, socket, error)

func (o *Office) fixed(p Protocol, r Request) (int, socket, error) {
	number := *of(&r.Fixed, p)
	if number == 0 {
		return 0, none, nil
	}
	s, err := o.take(p, number, r.Mode)
	if taken, ok := errors.AsType[*TakenError](err); ok {
		taken.Twice = taken.Holder == r.Instance
	}
	return number, s, err
}

func (o *Office) preferred(p Protocol, r Request) (int, socket, error) {
	number, rng := *of(&r.Preferred, p), o.ranges[p-1]
	if number < rng.Start || number > rng.last() {
		return 0, none, nil
	}
	if o.quarantine.rests(number, r.Instance) {
		return 0, none, nil
	}
	s, err := o.take(p, number, r.Mode)
	if err != nil {
		return 0, none, nil // it was a wish only
	}
	return number, s, nil
}

func (o *Office) firstFree(p Protocol, r Request) (int, socket, error) {
	rng, strangers := o.ranges[p-1], 0
	for number := o.numbers.next(rng.Start); number <= rng.last(); number = o.numbers.next(number + 1) {
		if o.quarantine.rests(number, r.Instance) {
			continue
		}
		s, err := open(number, r.Mode)
		if err == nil {
			return number, s, nil
		}
		if !inUse(err) {
			return 0, none, unholdable(p, number, err)
		}
		strangers++
	}
	for l := range o.quarantine.all() {
		if l.Port < rng.Start || l.Port > rng.last() {
			continue
		}
		if s, err := o.take(p, l.Port, r.Mode); err == nil {
			return l.Port, s, nil
		}
		strangers++
	}
	return 0, none, o.exhausted(rng, strangers)
}

// take holds one certain port.
func (o *Office) take(p Protocol, number int, mode Mode) (socket, error) {
	if err := o.leasable(p, number, ""); err != nil {
		return none, err
	}
	s, err := open(number, mode)
	if err != nil && inUse(err) {
		return none, &TakenError{Protocol: p, Port: number, Silent: mode == Released && holdable(number)}
	}
	if err != nil {
		return none, unholdable(p, number, err)
	}
	return s, nil
}

// holdable tells whether a program that sets SO_REUSEADDR could have a port.
func holdable(number int) bool {
	s, err := hold(number)
	if err != nil {
		return false
	}
	s.close()
	return true
}

// leasable tells whether a number is a port and leased to nobody but instance.
func (o *Office) leasable(p Protocol, number int, instance string) error {
	if number < 1 || number > maxPort {
		return fmt.Errorf("%s port %d: %w", p, number, ErrNotAPort)
	}
	if l, ok := o.byNumber[number]; ok && l.Instance != instance {
		return &TakenError{Protocol: p, Port: number, Holder: l.Instance}
	}
	return nil
}

func unholdable(p Protocol, number int, err error) error {
	return fmt.Errorf("%s port %d can not be held: %w; the agent needs the right to bind it"+
		" (ports below 1024 are root's) and up to three open files an instance", p, number, err)
}

func (o *Office) exhausted(rng Range, strangers int) error {
	e := &ExhaustedError{Range: rng, Strangers: strangers}
	for number := rng.Start; number <= rng.last(); number++ {
		l, ok := o.byNumber[number]
		if !ok {
			continue
		}
		e.Leased++
		if len(e.Holders) < maxHolders && !slices.Contains(e.Holders, l.Instance) {
			e.Holders = append(e.Holders, l.Instance)
		}
	}
	return e
}

// Free tells, cheaply and without leasing anything, whether instance could have
// these fixed ports now; ports that it has itself are free for it. The errors are
// those of Lease.
func (o *Office) Free(fixed table.Ports, instance string) error {
	if err := o.recordable(fixed, instance); err != nil {
		return err
	}
	for p, number := range each(fixed) {
		if o.numbers.has(number) {
			continue // its own
		}
		s, err := o.take(p, number, Reserved)
		if err != nil {
			return err
		}
		s.close()
	}
	return nil
}

// Adopt notes that instance, started by an earlier agent, has these ports and no
// others. There is no socket of ours for them. With an error, a *TakenError or one
// that wraps ErrNotAPort, nothing has changed.
func (o *Office) Adopt(instance string, ports table.Ports) error {
	return o.record(instance, ports, StateAdopted)
}

// Outside notes that instance has opened these ports by itself, and has no
// others: leases that it keeps stay as they are, those that it does not name go.
// The errors are those of Adopt.
func (o *Office) Outside(instance string, ports table.Ports) error {
	return o.record(instance, ports, StateOutside)
}

func (o *Office) record(instance string, ports table.Ports, s State) error {
	if err := o.recordable(ports, instance); err != nil {
		return err
	}
	for _, l := range slices.Clone(o.byInstance[instance]) {
		if *of(&ports, l.Protocol) != l.Port {
			o.drop(l)
		}
	}
	for p, number := range each(ports) {
		if !o.numbers.has(number) {
			o.add(&lease{Lease: Lease{p, number, instance, s}, socket: o.inherit(number)})
		}
	}
	return nil
}

// recordable tells whether instance may have these ports as far as the books say.
func (o *Office) recordable(ports table.Ports, instance string) error {
	seen := map[int]bool{}
	for p, number := range each(ports) {
		if err := o.leasable(p, number, instance); err != nil {
			return err
		}
		if seen[number] { // one number can not serve two protocols
			return &TakenError{Protocol: p, Port: number, Holder: instance, Twice: true}
		}
		seen[number] = true
	}
	return nil
}

// LetGo closes the sockets of an instance; the leases stay. That is for a Released
// process, which is about to bind the ports itself, and for a Passed one that
// ends and whose next one is not to be waited for. Reserved ports are not let go.
func (o *Office) LetGo(instance string) {
	for _, l := range o.byInstance[instance] {
		if l.mode != Reserved {
			o.closeSocket(l)
		}
	}
}

// Listening notes that the process of an instance is ready on its reserved ports.
func (o *Office) Listening(instance string) {
	for _, l := range o.byInstance[instance] {
		if l.State == StateReserved {
			l.State = StateListening
		}
	}
}

// Release ends all leases of an instance. Those that the office chose or honoured
// go into quarantine.
func (o *Office) Release(instance string) {
	for _, l := range slices.Clone(o.byInstance[instance]) {
		o.release(l)
	}
}

func (o *Office) release(l *lease) {
	o.drop(l)
	if l.State != StateOutside || l.stolen {
		o.quarantine.add(l.Lease, l.stolen)
	}
}

// Stolen notes that another program was seen on a leased port: when the lease has
// ended nobody gets it for a while, the instance itself neither.
func (o *Office) Stolen(instance string, number int) {
	if l := o.byNumber[number]; l != nil && l.Instance == instance {
		l.stolen = true
	}
}

// Of is the ports of an instance, false if it has none.
func (o *Office) Of(instance string) (table.Ports, bool) {
	var ports table.Ports
	for _, l := range o.byInstance[instance] {
		*of(&ports, l.Protocol) = l.Port
	}
	return ports, ports.Any()
}

// All is every lease, and every port in quarantine with the instance that had it
// last, ordered by port.
func (o *Office) All() []Lease {
	all := slices.AppendSeq(make([]Lease, 0, len(o.byNumber)), o.quarantine.all())
	for _, l := range o.byNumber {
		all = append(all, l.Lease)
	}
	slices.SortFunc(all, func(a, b Lease) int { return cmp.Compare(a.Port, b.Port) })
	return all
}

// Close ends all leases. It may be called twice. What is in a depot stays there for
// the next office.
func (o *Office) Close() {
	o.depot = nil
	for instance := range o.byInstance {
		o.Release(instance)
	}
}

func (o *Office) add(l *lease) {
	o.quarantine.end(l.Port)
	o.numbers.add(l.Port)
	o.byNumber[l.Port] = l
	o.byInstance[l.Instance] = append(o.byInstance[l.Instance], l)
}

func (o *Office) drop(l *lease) {
	o.closeSocket(l)
	o.numbers.remove(l.Port)
	delete(o.byNumber, l.Port)
	rest := slices.DeleteFunc(o.byInstance[l.Instance], func(x *lease) bool { return x == l })
	if len(rest) > 0 {
		o.byInstance[l.Instance] = rest
	} else {
		delete(o.byInstance, l.Instance)
	}
}
