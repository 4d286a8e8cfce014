package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/allexgo/machine-agent/agent/config"
	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/metrics"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/output"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/lan/table"
)

// portRetry is how often a need is looked at again whose fixed port some
// other program holds; nothing tells when such a port is let go.
const portRetry = time.Second

// loop owns the state of the agent. All of its methods run on one goroutine,
// and none of them waits for anything.
type loop struct {
	*Agent
	instances map[string]*instance
	ports     *port.Office
	reserved  map[int]*reservation // by port
	queue     []*instance          // want to start, and wait for a start or a place to be free
	occupied  int                  // instances that take one of maxprocesses, by a bid or a process
	housed    int                  // those of them that have the process
	inFlight  int                  // starts under way, from the bid on
	begun     int                  // those of them that have come to the process
	engaged   map[string]bool
	isDrained bool // nothing is served here until an operator says so
	versions  int  // of what is kept
	writing   bool // what is kept is being written
	unwritten bool // and has changed since
	// unregained: that sockets of an adopted process can not be had has been logged.
	unregained bool

	up     bool // there is a session and its tables have been read
	read   bool // there was one
	linked LinkStatus
	// problems are those of the link that have been logged since the last session.
	problems map[string]bool

	stuck      int // writes that the disk of the state directory has not taken for long
	stuckSince time.Time

	shutdown bool // everything is to end
	strays   []stray

	touched []*instance // are to be shown at the end of this turn
	full    bool        // there was no room for another process when they were shown last
	silent  bool        // what follows from a new session, or from its end, is no event of each need
}

func newLoop(a *Agent) *loop {
	return &loop{
		Agent:     a,
		instances: make(map[string]*instance),
		ports:     a.newOffice(),
		linked:    LinkStatus{Since: a.started, Problem: "not tried yet"},
		problems:  make(map[string]bool),
		reserved:  make(map[int]*reservation),
	}
}

// run takes events until ctx ends or a shutdown is complete.
func (l *loop) run(ctx context.Context) {
	for {
		select {
		case event := <-l.inbox:
			event(l)
		case <-ctx.Done():
			return
		}
		l.startQueued()
		l.publish()
		if l.shutdown && !l.anyOwn() {
			return
		}
	}
}

// finish takes the events that came before the loop ended: the ends of processes
// among them have to be reported. Nothing is begun any more.
func (l *loop) finish() {
	l.shutdown = true
	for {
		select {
		case event := <-l.inbox:
			event(l)
		default:
			l.publish()
			return
		}
	}
}

// hearLate takes the events that the keepers posted after finish, when there is
// nobody left to post more: the end of a process that they saw is an event all
// the same, and no agent after this one could tell of it.
func (l *loop) hearLate() {
	l.finish() // what was posted first
	l.late.Lock()
	defer l.late.Unlock()
	for _, event := range l.late.events {
		event(l)
	}
	l.publish()
	for _, i := range l.instances {
		l.disarm(i)
	}
}

// anyOwn tells whether a process is left that a shutdown has to wait for.
func (l *loop) anyOwn() bool {
	for _, i := range l.instances {
		if i.child != nil && i.child.origin != Outside {
			return true
		}
	}
	return false
}

// letGo leaves all processes to the next agent.
func (l *loop) letGo() {
	for number, r := range l.reserved {
		l.unreserve(number, r.process)
	}
	for _, i := range l.instances {
		l.disarm(i)
		if i.child != nil {
			i.child.keeper.leave()
		}
	}
}

// address is what the LAN knows this machine by; empty before the first session.
func (l *loop) address() string {
	if l.Address != "" {
		return l.Address
	}
	return l.linked.SeenAs
}

// get finds or makes the instance of that name.
func (l *loop) get(name string) *instance {
	i := l.instances[name]
	if i == nil {
		i = &instance{name: name}
		l.instances[name] = i
	}
	return i
}

// settle does whatever follows from the present state of an instance. It is
// called after every change and may be called at any time: it looks at what
// is, not at what happened.
func (l *loop) settle(i *instance) {
	l.touch(i)
	l.reportDown(i)
	l.watchOrphan(i)
	l.offer(i)
	l.count(i)
	l.keepSockets(i)
	if i.queued && i.need == nil { // else a full machine remembers what others serve
		i.queued = false
		l.queue = slices.DeleteFunc(l.queue, func(other *instance) bool { return other == i })
	}
	if !i.idle() {
		i.idleSince = time.Time{}
		return
	}
	if !l.unlooped(i) {
		return
	}
	if until := i.lastEnd.Add(remembered); time.Now().Before(until) {
		l.wakeUp(i, until)
		return
	}
	l.disarm(i)
	if l.instances[i.name] == i {
		delete(l.instances, i.name)
	}
}

// reportDown takes our record off the LAN's table when no process of ours
// serves it as it stands there. What is not ours is never touched.
func (l *loop) reportDown(i *instance) {
	if !l.up || i.reported || !l.stale(i) {
		return
	}
	i.reported = true
	reason, exit := i.lastReason, i.lastExit
	switch {
	case i.serving():
		reason, exit = "its ports changed", nil
	case i.child != nil:
		reason, exit = i.child.reason, i.child.exit
	}
	if i.backoff.looping() {
		reason += "; " + i.backoff.describe()
	}
	l.Logger.Info("reporting a service down", "instance", i.name, "reason", reason)
	i.reopens = time.Now().Add(reopenWithin)
	i.answered = l.link.ReportDown(i.name, reason, exit)
	l.Figures.Count(metrics.DownReport)
	l.happenedTo(i, ReportedDown, reason)
	l.bidEarly(i)
}

// earlyBid is how long a bid that went out before its need opened may wait for the
// word. There are LAN managers that never answer who asks for a need too early.
const earlyBid = time.Second

// bidEarly bids for the need that a report of ours is about to open. A LAN
// manager keeps the subscription until there is such a need (lan/PROTOCOL.md
// section 4), which saves a round trip on the way to the replacement. The
// challenge comes after the need itself, and is decided on as any other.
func (l *loop) bidEarly(i *instance) {
	if i.bid != nil || l.shutdown || l.inFlight >= startsAtOnce() {
		return
	}
	if _, ok := l.modules().Find(i.lastModule); !ok {
		return
	}
	for _, rule := range []func(*loop, *instance) (verdict, bool){(*loop).drained, (*loop).ending, (*loop).held, (*loop).capacity, (*loop).backoff} {
		if _, against := rule(l, i); against {
			return
		}
	}
	early := l.bid(i)
	l.after(earlyBid, i, func() {
		if i.bid == early && !early.responded && (i.need == nil || !early.challenged) {
			l.cancelBid(i)
			l.settle(i)
		}
	})
}

// stale tells whether the LAN's record is one of ours that is not true any more.
// The ports tell it from one of another agent at the same address.
func (l *loop) stale(i *instance) bool {
	if i.service == nil || i.service.IPAddress != l.address() {
		return false
	}
	if i.child != nil && i.service.Ports == i.child.ports {
		return !i.serving()
	}
	return i.ghost != nil && i.service.Ports == *i.ghost
}

// watchOrphan gives a process that nobody wants here a time of grace, and
// then stops it.
func (l *loop) watchOrphan(i *instance) {
	switch unwanted := l.unwanted(i); {
	case unwanted != "" && i.orphan == nil:
		var timer *time.Timer
		timer = l.after(l.OrphanGrace, i, func() {
			if i.orphan != timer {
				return // it had fired before it was stopped
			}
			i.orphan = nil
			if reason := l.unwanted(i); reason != "" {
				l.stop(i, reason, true)
			}
		})
		i.orphan = timer
	case unwanted == "" && i.orphan != nil:
		i.orphan.Stop()
		i.orphan = nil
	}
}

// unwanted tells why a process is not wanted here; "" if it is, or if that is
// not known now.
func (l *loop) unwanted(i *instance) string {
	if !l.up || !i.ready() && !i.unwell() || i.reported || i.bid != nil {
		return ""
	}
	switch place := i.place(l.address()); {
	case place == PlaceElsewhere:
		return "SERVED_ELSEWHERE"
	case place == PlaceUnneeded && l.StopUnneeded:
		return "UNNEEDED"
	}
	return ""
}

// offer bids for the open need of an instance if nothing speaks against it.
func (l *loop) offer(i *instance) {
	if !l.up || l.shutdown || i.need == nil {
		return
	}
	if i.bid != nil {
		if i.bid.challenged && !i.bid.responded {
			l.proceed(i)
		}
		return
	}
	switch v := l.decide(i); {
	case v.Decision == DecisionBid && (i.ready() || l.inFlight < startsAtOnce()):
		l.bid(i)
	case v.Decision == DecisionBid || v.Decision == DecisionCapacity:
		l.enqueue(i)
	case !v.retry.IsZero():
		l.wakeUp(i, v.retry)
	}
}

// bid offers to serve the need of an instance.
func (l *loop) bid(i *instance) *bid {
	i.bid = &bid{Bid: l.link.Bid(i.name)}
	l.Figures.Count(metrics.Bid)
	l.reached(i, metrics.StageBid)
	return i.bid
}

// proceed answers a challenge: with the process that runs, or by starting
// one. While the process before has not left altogether it waits.
func (l *loop) proceed(i *instance) {
	switch {
	case i.child == nil:
		// Bids take no room from one that is challenged: where answers are slow there are
		// always younger ones, and nothing would ever start.
		if l.begun >= startsAtOnce() {
			l.cancelBid(i) // others may have it; we come back when there is room
			l.enqueue(i)
			return
		}
		i.bid.pending = false
		if v := l.decide(i); v.Decision != DecisionBid {
			l.Logger.Debug("a bid is taken back", "instance", i.name, "detail", v.detail)
			l.cancelBid(i)
			l.offer(i)
			return
		}
		l.start(i)
	case i.child.state == process.Ready && !i.child.ports.Any():
		l.cancelBid(i) // there is nothing to offer before it has registered a port
	case i.child.state == process.Ready:
		i.bid.responded, i.bid.need, i.child.offered = true, i.need, true
		i.bid.Respond(link.Answer{Need: *i.need, IPAddress: l.address(), Ports: i.child.ports, PID: i.child.pid(), Still: l.still(i.child), Where: listening(i.child.process)})
	}
}

// start leases ports and has a process started for a need that is ours now.
func (l *loop) start(i *instance) {
	m, _ := l.modules().Find(i.need.ModuleName) // decide has seen that it is there
	ports, err := l.ports.Lease(port.Request{
		Instance: i.name, Protocols: m.Ports, Mode: m.PortMode,
		Fixed: i.need.Ports, Preferred: i.lastPorts,
	})
	if err != nil {
		l.giveUp(i, m, err)
		return
	}
	cgroup, err := l.cgroup(i.name)
	if err == nil && m.Notifies() && l.Notify == nil {
		err = errors.New("its module says `notify` or `watchdog`, and the agent has no notify socket; a warning of `agentctl status` says why")
	}
	if err != nil { // or no file can have the name
		l.giveUp(i, m, err)
		return
	}
	if m.PortMode == port.Released {
		l.ports.LetGo(i.name)
	}
	record := state.Record{
		Instance: i.name, Module: i.need.ModuleName, ModuleMark: m.Mark(), Phase: state.Starting,
		Identity: process.Identity{Cgroup: cgroup},
		Ports:    ports, PortMode: m.PortMode, Log: l.Store.LogPath(i.name), Origin: originStarted, Stop: m.Stop,
	}
	i.child = &child{keeper: l.newKeeper(record), module: m, origin: Started, state: process.Starting, ports: ports}
	i.lastModule = i.need.ModuleName
	l.engage(i.need.ModuleName)
	spec := l.spec(m, i.need, record)
	spec.Env = override(i.road.environment(), spec.Env)
	for _, s := range l.ports.Sockets(i.name) {
		spec.Sockets = append(spec.Sockets, process.Socket{Name: s.Protocol.String(), FD: s.FD})
	}
	i.child.startChild(spec, l.asked(m, i.need, record))
}

// asked is how the process of that need and record is asked; m is nil if its
// module has left the catalogue.
func (l *loop) asked(m *module.Module, n *table.Need, r state.Record) asked {
	how := asked{
		serving: l.serving,
		ready:   module.Ready{Kind: module.ReadyPort}, timeout: defaultStartTimeout,
		host: l.probeHost(), ports: r.Ports, own: make(map[int]uint64),
		log: r.Log, logFrom: r.LogFrom, limit: output.Limit(module.DefaultLog),
	}
	for _, n := range numbers(r.Ports) {
		how.own[n] = l.ports.Inode(n)
	}
	if m != nil {
		how.ready, how.health, how.timeout, how.limit = m.Ready, m.Health, m.StartTimeout, output.Limit(m.Log)
		how.notifies, how.watchdog = m.Notifies() && l.Notify != nil, m.Watchdog
		if asksByCommand(m) {
			how.command = &template{l.spec(m, n, r), values(n, r.Ports)}
		}
	}
	return how
}

// giveUp ends the try to start an instance before there was a process.
func (l *loop) giveUp(i *instance, m *module.Module, err error) {
	l.ports.Release(i.name)
	l.failed(i, m, err)
	l.cancelBid(i)
	l.offer(i)
}

func values(n *table.Need, ports table.Ports) module.Values {
	return module.Values{InstanceName: n.InstanceName, ModuleName: n.ModuleName, Ports: ports, PropertyHash: n.PropertyHash}
}

// probeHost is where a child's ports are tried: at the address that the LAN
// manager will try, if this machine has it.
func (l *loop) probeHost() string {
	if ip := config.LocalIP(l.address()); ip != nil {
		return ip.String()
	}
	return net.IPv4(127, 0, 0, 1).String()
}

// engage tells the LAN manager once a session that a module is in use here.
func (l *loop) engage(name string) {
	if !l.engaged[name] {
		l.engaged[name] = true
		l.link.EngageModule(name)
	}
}

// cancelBid takes a bid back; its need goes to others.
func (l *loop) cancelBid(i *instance) {
	if i.bid != nil {
		i.bid.Cancel()
		i.bid = nil
		l.Figures.Count(metrics.BidTakenBack)
	}
}

// failed takes note that a start has led to no process.
func (l *loop) failed(i *instance, m *module.Module, err error) {
	i.lastReason = err.Error()
	l.Figures.Count(metrics.NotSpawned)
	if isShortage(err) {
		l.lacks(i)
	} else {
		l.fails(i, 0, m.Backoff, nil)
	}
	l.Logger.Warn("an instance could not be started", "instance", i.name, "reason", i.lastReason, "failures", i.backoff.failures)
	l.happenedTo(i, ProcessNotStarted, i.lastReason)
}

// farewell says how the process of an instance is made to end. Nobody has come to
// one that was never ready, or does any good by staying with one that failed.
func (l *loop) farewell(i *instance) farewell {
	c := i.child
	f := farewell{Stop: c.record.Stop, reason: c.reason} // written before the keeper began, never changed
	if c.module != nil {
		f.Stop = c.module.Stop
	}
	if !c.planned || c.ready.IsZero() {
		f.Grace = 0
	}
	if c.planned {
		f.answered = i.answered
	}
	return f
}

// move takes a process to its next state; an impossible move is refused and
// leaves everything as it is.
func (l *loop) move(c *child, e process.Event) error {
	next, err := process.Next(c.state, e)
	if err != nil {
		l.Logger.Debug("nothing to do", "instance", c.name, "error", err)
		return err
	}
	c.state = next
	return nil
}

// count keeps the sums over all instances.
func (l *loop) count(i *instance) {
	adjust := func(sum *int, was *bool, is bool) {
		if is != *was {
			*was = is
			if is {
				*sum++
			} else {
				*sum--
			}
		}
	}
	adjust(&l.occupied, &i.occupied, i.occupies())
	adjust(&l.housed, &i.housed, i.child != nil && i.occupies())
	adjust(&l.inFlight, &i.inFlight, i.starting())
	adjust(&l.begun, &i.begun, i.child != nil && i.child.state == process.Starting)
}

func (l *loop) enqueue(i *instance) {
	if !i.queued {
		i.queued = true
		l.queue = append(l.queue, i)
	}
}

// startQueued lets those go on that waited, as far as there is room now.
func (l *loop) startQueued() {
	for len(l.queue) > 0 && l.inFlight < startsAtOnce() && (l.MaxProcesses == 0 || l.occupied < l.MaxProcesses) {
		i := l.queue[0]
		l.queue = l.queue[1:]
		i.queued = false
		l.settle(i)
	}
}

// wakeUp has an instance looked at again at that time.
func (l *loop) wakeUp(i *instance, at time.Time) {
	if i.wake != nil && !i.wakeAt.After(at) {
		return
	}
	if i.wake != nil {
		i.wake.Stop()
	}
	var timer *time.Timer
	timer = l.after(time.Until(at), i, func() {
		if i.wake == timer { // else it had fired before it was stopped
			i.wake = nil
			l.settle(i)
		}
	})
	i.wake, i.wakeAt = timer, at
}

// after runs f on the loop after d, if the instance is still the same one.
func (l *loop) after(d time.Duration, i *instance, f func()) *time.Timer {
	a := l.Agent
	return time.AfterFunc(d, func() {
		a.post(func(l *loop) {
			if l.instances[i.name] == i {
				f()
			}
		})
	})
}

// disarm stops the timers of an instance.
func (l *loop) disarm(i *instance) {
	for _, t := range []*time.Timer{i.wake, i.orphan} {
		if t != nil {
			t.Stop()
		}
	}
	i.wake, i.orphan = nil, nil
}

// describeEnd is the end of a process in words.
func describeEnd(reason string, exit process.Exit) string {
	if reason == "" {
		return exit.String()
	}
	return fmt.Sprintf("%s (%s)", reason, exit)
}
