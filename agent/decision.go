package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
)

// Decision is the outcome of looking at a need (design section 4).
type Decision int

const (
	DecisionBid Decision = iota + 1
	DecisionStarting
	DecisionServedHere
	DecisionDrained
	DecisionHeld
	DecisionCapacity
	DecisionAddress
	DecisionNotCatalogued
	DecisionPortTaken
	DecisionBackoff
	DecisionBidPending
	DecisionServedElsewhere
)

// verdict is a decision with its reason.
type verdict struct {
	Decision
	detail string
	retry  time.Time // when the answer changes by itself; zero: at an event
}

// rules are the questions that are asked of an instance, cheapest and
// strongest first. The first that has an answer decides; if none has, the
// agent bids. Each rule reads the loop's state and changes nothing.
var rules = []func(*loop, *instance) (verdict, bool){
	(*loop).servedHere,
	(*loop).servedElsewhere,
	(*loop).drained,
	(*loop).starting,
	(*loop).ending,
	(*loop).held,
	(*loop).otherAddress,
	(*loop).running,
	(*loop).capacity,
	(*loop).notCatalogued,
	(*loop).portTaken,
	(*loop).backoff,
	(*loop).bidPending,
}

// decide looks at an instance.
func (l *loop) decide(i *instance) verdict {
	for _, rule := range rules {
		if v, ok := rule(l, i); ok {
			return v
		}
	}
	if !l.up {
		return verdict{Decision: DecisionBid, detail: "as soon as there is a session with a LAN manager"}
	}
	if i.bid != nil {
		return verdict{Decision: DecisionBid, detail: "the offer is with the LAN manager"}
	}
	return verdict{Decision: DecisionBid, detail: "waits for one of the starts under way to end"}
}

func (l *loop) servedHere(i *instance) (verdict, bool) {
	return verdict{Decision: DecisionServedHere}, i.place(l.address()) == PlaceServed
}

func (l *loop) servedElsewhere(i *instance) (verdict, bool) {
	if i.need != nil || i.service == nil || l.stale(i) { // ours is about to go
		return verdict{}, false
	}
	return verdict{Decision: DecisionServedElsewhere, detail: "by " + i.service.IPAddress}, true
}

func (l *loop) starting(i *instance) (verdict, bool) {
	if i.child == nil || i.child.state != process.Starting {
		return verdict{}, false
	}
	detail := "it is being started"
	if pid := i.child.pid(); pid != 0 {
		detail = fmt.Sprintf("pid %d is not ready yet", pid)
		if why := i.child.keeper.awaits(); why != "" {
			detail += ": " + why
		}
	}
	return verdict{Decision: DecisionStarting, detail: detail}, true
}

// ending lets the end of the process before be awaited: a bid may be out in
// the meantime, a start may not. Withdrawn processes are on their way out, or
// must not be offered.
func (l *loop) ending(i *instance) (verdict, bool) {
	if i.child == nil || i.child.state == process.Ready || i.child.state == process.Emptying {
		return verdict{}, false
	}
	if l.stuck > 0 && i.child.pid() == 0 {
		return l.short(i)
	}
	detail := fmt.Sprintf("pid %d is %s; a new process starts when it is gone", i.child.pid(), i.child.state)
	switch {
	case i.child.state != process.Withdrawn:
	case i.child.stopping:
		detail = fmt.Sprintf("pid %d stops by itself; a new process starts when it is gone", i.child.pid())
	default:
		until := "it registers again"
		if i.child.unwell {
			until = "it is well again"
		}
		detail = fmt.Sprintf("it is not served: pid %d is withdrawn until %s: %s", i.child.pid(), until, i.child.reason)
	}
	return verdict{Decision: DecisionStarting, detail: detail}, true
}

// running answers for a process that is ready and only has to be offered.
func (l *loop) running(i *instance) (verdict, bool) {
	if i.child == nil || i.child.state != process.Ready {
		return verdict{}, false
	}
	if !i.child.ports.Any() {
		return verdict{Decision: DecisionStarting, detail: fmt.Sprintf("pid %d has registered no port; it has to register those on which it serves", i.child.pid())}, true
	}
	if v, ok := l.bidPause(i); ok {
		return v, true
	}
	if i.bid != nil && i.bid.pending {
		return l.bidPending(i)
	}
	return verdict{Decision: DecisionBid, detail: fmt.Sprintf("with the running process, pid %d", i.child.pid())}, true
}

func (l *loop) drained(*instance) (verdict, bool) {
	return verdict{Decision: DecisionDrained, detail: "this machine is drained; `agentctl resume` lets it serve again"}, l.isDrained
}

func (l *loop) held(i *instance) (verdict, bool) {
	if !i.held {
		return verdict{}, false
	}
	return verdict{Decision: DecisionHeld, detail: "held by an operator; `agentctl start " + i.name + "` lifts it"}, true
}

// capacity goes by what is counted, bids included, lest more are made than there is
// room for. One that is challenged has to find room among the processes only.
func (l *loop) capacity(i *instance) (verdict, bool) {
	most, taken, counted := l.MaxProcesses, l.occupied, i.occupied
	if i.bid != nil && i.bid.challenged {
		taken, counted = l.housed, i.housed
	}
	if most == 0 || counted || taken < most {
		return verdict{}, false
	}
	return verdict{Decision: DecisionCapacity, detail: fmt.Sprintf("this machine runs %d of at most %d; `maxprocesses` in the configuration says how many it may", taken, most)}, true
}

func (l *loop) otherAddress(i *instance) (verdict, bool) {
	if i.need == nil || i.need.IPAddress == "" {
		return verdict{}, false
	}
	ours := l.address()
	if !i.rejected && (ours == "" || within(ours, i.need.IPAddress)) {
		return verdict{}, false
	}
	return verdict{Decision: DecisionAddress, detail: fmt.Sprintf("the need asks for a machine at %s, this one is %s", i.need.IPAddress, ours)}, true
}

// within tells whether an address lies in an address or CIDR range.
func within(address, want string) bool {
	if address == want {
		return true
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	if w, err := netip.ParseAddr(want); err == nil {
		return w.Unmap() == a.Unmap()
	}
	p, err := netip.ParsePrefix(want)
	return err == nil && p.Masked().Contains(a.Unmap())
}

func (l *loop) notCatalogued(i *instance) (verdict, bool) {
	if i.need == nil {
		return verdict{}, false
	}
	if _, err := state.FileName(i.name); err != nil {
		return verdict{Decision: DecisionNotCatalogued, detail: fmt.Sprintf("no process here can have that name: %v", err)}, true
	}
	if why, can := l.canRun(i.need.ModuleName); !can {
		return verdict{Decision: DecisionNotCatalogued, detail: why}, true
	}
	return verdict{}, false
}

// canRun tells whether this machine can run a module, and if not, why.
func (l *loop) canRun(name string) (why string, can bool) {
	m, ok := l.modules().Find(name)
	if !ok {
		return fmt.Sprintf("no module %q here; add modules/%s.json and call `agentctl reload`", name, strings.TrimPrefix(name, "allex_")), false
	}
	for _, controller := range m.Limits.Controllers() {
		if err := l.lacking[controller]; err != nil {
			return fmt.Sprintf("module %q can not run here: %v", m.Name, err), false
		}
	}
	return "", true
}

func (l *loop) portTaken(i *instance) (verdict, bool) {
	if i.need == nil || !i.need.Ports.Any() || i.child != nil {
		return verdict{}, false
	}
	var taken *port.TakenError
	if err := l.ports.Free(i.need.Ports, i.name); !errors.As(err, &taken) {
		return verdict{}, false
	}
	return verdict{Decision: DecisionPortTaken, detail: taken.Error(), retry: time.Now().Add(portRetry)}, true
}

func (l *loop) backoff(i *instance) (verdict, bool) {
	if wait := i.backoff.until; time.Now().Before(wait) {
		detail := "its process ended too soon, " + times(i.backoff.failures)
		if i.backoff.looping() {
			detail = i.backoff.describe()
		}
		if i.lastReason != "" {
			detail += ", last: " + i.lastReason
		}
		return verdict{Decision: DecisionBackoff, detail: detail, retry: wait}, true
	}
	if v, ok := l.short(i); ok {
		return v, true
	}
	return l.bidPause(i)
}

// bidPause answers for an instance whose last bid led to nothing.
func (l *loop) bidPause(i *instance) (verdict, bool) {
	if !time.Now().Before(i.rebid.until) {
		return verdict{}, false
	}
	return verdict{Decision: DecisionBackoff, detail: "the last offer led to nothing: " + i.rebid.reason, retry: i.rebid.until}, true
}

func (l *loop) bidPending(i *instance) (verdict, bool) {
	if i.bid == nil || !i.bid.pending {
		return verdict{}, false
	}
	return verdict{Decision: DecisionBidPending, detail: "the LAN manager has not answered the offer yet; another agent may have been asked to start it"}, true
}
