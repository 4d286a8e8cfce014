package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
)

// Ports tells about every lease, and who listens there, ordered by port.
func (a *Agent) Ports(ctx context.Context) ([]PortLease, error) {
	view := portView{asked: make(map[string]asked), young: make(map[string]bool), processes: make(map[string]*process.Process), passed: make(map[int]uint64)}
	all, err := ask(ctx, a, func(l *loop) ([]PortLease, error) {
		leases := l.ports.All()
		all := make([]PortLease, len(leases))
		host := l.probeHost()
		view.host, _ = netip.ParseAddr(host) // it is an address
		for n, lease := range leases {
			all[n] = PortLease{Lease: lease}
			if r := l.reserved[lease.Port]; r != nil && r.instance == "" {
				all[n].PID, view.processes[lease.Instance] = r.process.Identity().PID, r.process
				continue
			}
			i := l.instances[lease.Instance]
			if i == nil || lease.State == port.StateQuarantined {
				continue
			}
			if l.ports.Passes(lease.Instance) {
				view.passed[lease.Port] = l.ports.Inode(lease.Port)
			}
			if i.child != nil && i.child.process != nil {
				all[n].PID = i.child.pid()
				view.processes[lease.Instance] = i.child.process
				view.asked[lease.Instance] = asked{host: host, ports: i.child.ports}
				view.young[lease.Instance] = i.child.young(time.Now())
			}
		}
		return all, nil
	})
	if err != nil {
		return nil, err
	}
	done, err := a.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	view.look(all)
	return all, nil
}

// portView finds out who listens on leased ports, with one question to the
// operating system for all of them, and one look at each process at most.
type portView struct {
	asked     map[string]asked            // by instance, of those that live
	young     map[string]bool             // by instance: it need not listen yet
	processes map[string]*process.Process // by instance
	passed    map[int]uint64              // by port, the inodes of our own sockets
	host      netip.Addr                  // where others connect

	sockets []process.Listener
	leased  map[string][]process.Listener // by instance, what listens on its ports
	owned   map[string]ownership          // by instance, which of these are its own
}

type ownership struct {
	sockets []process.Listener
	err     error
}

// look fills in of each lease who listens, and what is wrong with that.
func (v *portView) look(all []PortLease) {
	sockets, err := process.Listeners(0)
	if err != nil {
		for n := range all {
			all[n].Listener = ListenerUnknown
		}
		return
	}
	v.sockets, v.leased, v.owned = sockets, make(map[string][]process.Listener), make(map[string]ownership)
	byPort := make(map[int][]process.Listener)
	for _, s := range sockets {
		byPort[int(s.Address.Port())] = append(byPort[int(s.Address.Port())], s)
	}
	for _, lease := range all {
		v.leased[lease.Instance] = append(v.leased[lease.Instance], byPort[lease.Port]...)
	}
	var strangers []process.Listener
	for n := range all {
		all[n].Listener = v.listener(all[n], byPort[all[n].Port])
		if all[n].Listener == ListenerStranger {
			strangers = append(strangers, byPort[all[n].Port]...)
		}
	}
	holders := process.Holders(strangers)
	for n := range all {
		all[n].Detail = v.detail(all[n], byPort[all[n].Port], holders)
	}
}

// listener tells whose the sockets of a leased port are.
func (v *portView) listener(lease PortLease, sockets []process.Listener) Listener {
	p := v.processes[lease.Instance]
	passed := func(s process.Listener) bool { return s.Inode == v.passed[lease.Port] }
	switch {
	case len(sockets) == 0:
		return ListenerNobody
	case slices.ContainsFunc(sockets, passed):
		return ListenerOurs
	case lease.PID == 0:
		return ListenerStranger
	}
	own, known := v.owned[lease.Instance]
	if !known {
		own.sockets, own.err = p.Owned(v.leased[lease.Instance])
		v.owned[lease.Instance] = own
	}
	switch {
	case slices.ContainsFunc(sockets, func(s process.Listener) bool { return slices.Contains(own.sockets, s) }):
		return ListenerOurs
	case own.err != nil:
		return ListenerUnknown
	}
	return ListenerStranger
}

// detail is what is wrong with a lease.
func (v *portView) detail(lease PortLease, sockets []process.Listener, holders map[uint64]string) string {
	how := v.asked[lease.Instance]
	switch {
	case lease.Listener == ListenerStranger:
		return "held by " + named(sockets, holders)
	case lease.PID == 0 || lease.State == port.StateOutside || v.passed[lease.Port] != 0, v.young[lease.Instance]:
		return ""
	case lease.Listener == ListenerOurs && slices.ContainsFunc(sockets, func(s process.Listener) bool {
		return s.Address.Addr().IsUnspecified() || s.Address.Addr().Unmap() == v.host
	}):
		return ""
	case lease.Listener == ListenerOurs:
		return how.amiss(v.owned[lease.Instance].sockets)
	case lease.Listener == ListenerNobody && len(v.owned[lease.Instance].sockets) == 0:
		if owned, err := v.processes[lease.Instance].Owned(v.sockets); err == nil {
			return how.amiss(owned)
		}
	}
	return ""
}

// young tells whether a process is still in the first half of the time that it has to
// become ready: where it listens then is not where it will.
func (c *child) young(now time.Time) bool {
	timeout := defaultStartTimeout
	if c.module != nil {
		timeout = c.module.StartTimeout
	}
	return c.state == process.Starting && now.Sub(c.start) < timeout/2
}

// named are the holders of some sockets in words.
func named(sockets []process.Listener, holders map[uint64]string) string {
	var words []string
	for _, s := range sockets {
		if who := holders[s.Inode]; who != "" && !slices.Contains(words, who) {
			words = append(words, who)
		}
	}
	if len(words) == 0 {
		return "another program"
	}
	return strings.Join(words, ", ")
}

// amiss tells in words what is wrong with where a process listens; empty if a
// connection to one of its ports can reach it.
func (how asked) amiss(owned []process.Listener) string {
	host, _ := netip.ParseAddr(how.host) // it is an address
	ports := numbers(how.ports)
	near := on(owned, ports)
	switch {
	case len(process.Covering(near, host)) > 0 || len(ports) == 0:
		return ""
	case len(near) > 0:
		return fmt.Sprintf("it listens on %s, where nobody who connects to %s meets it; have it listen on that address, or on all", addresses(near), host)
	case len(owned) > 0:
		return fmt.Sprintf("it listens on %s instead of port %s", addresses(owned), words(ports))
	}
	return fmt.Sprintf("it listens on no port; have it listen on port %s, as its environment says", words(ports))
}

func addresses(sockets []process.Listener) string {
	var all []string
	for _, s := range sockets {
		all = append(all, s.Address.String())
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

func words(ports []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(ports), " ", ", "), "[]")
}

// needLook is what is worth a look at the system's sockets for the decision on a need.
type needLook struct {
	asked
	process *process.Process // one that is not ready; else nil
	taken   int              // the port that another program has; else 0
}

// look tells what to look at, if there is anything.
func (l *loop) look(i *instance, d Decision) (look needLook, ok bool) {
	var taken *port.TakenError
	switch c := i.child; {
	case d == DecisionStarting && c != nil && c.state == process.Starting && c.process != nil && !l.ports.Passes(i.name):
		return needLook{asked: asked{host: l.probeHost(), ports: c.ports}, process: c.process}, true
	case d == DecisionPortTaken && errors.As(l.ports.Free(i.need.Ports, i.name), &taken) && taken.Holder == "":
		return needLook{taken: taken.Port}, true
	}
	return needLook{}, false
}

// takersOf tells who has the ports that other programs have, with one look at all
// processes of the machine.
func takersOf(looks map[string]needLook) map[int]string {
	sockets := map[int][]process.Listener{}
	for _, n := range looks {
		if n.taken != 0 {
			sockets[n.taken] = nil
		}
	}
	if len(sockets) == 0 {
		return nil
	}
	listening, err := process.Listeners(0)
	bound, err2 := process.Bound(0)
	if err != nil || err2 != nil {
		return nil
	}
	var all []process.Listener
	for _, s := range slices.Concat(listening, bound) {
		port := int(s.Address.Port())
		if of, ok := sockets[port]; ok {
			sockets[port] = append(of, s)
			all = append(all, s)
		}
	}
	holders, takers := process.Holders(all), map[int]string{}
	for port, of := range sockets {
		if len(of) > 0 {
			takers[port] = named(of, holders)
		}
	}
	return takers
}

// more is what the look adds to the reason of the decision.
func (n needLook) more(takers map[int]string) string {
	if n.process != nil {
		if where := n.where(n.process); where != "" {
			return ": " + where
		}
		return ""
	}
	if taker := takers[n.taken]; taker != "" {
		return fmt.Sprintf(" (it is %s)", taker)
	}
	return ""
}
