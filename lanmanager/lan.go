package lanmanager

import (
	"cmp"
	"container/list"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
	"github.com/allexgo/machine-agent/lanmanager/page"
)

// lan is the state of the LAN: what must run, what runs, and whose it is. It
// belongs to the core; every method runs there. What happens to one unit costs
// the same however many needs, services and parties there are, but for those
// who are told of it.
type lan struct {
	log         hclog.Logger
	crew        *crew
	door        *door
	metrics     *metrics
	grace       time.Duration
	confirmTime time.Duration // Config.Confirm
	limits      Limits
	newID       func() string
	started     time.Time

	needs    *table.Table // the open needs
	services *table.Table
	nats     *table.Table
	modules  *table.Table

	originals *originals // the needs as they were asked for, open or not
	saver     *saver
	open      map[string]*need      // what there is to the records of needs
	serving   map[string]*service   // what there is to the records of services
	served    int                   // services that there were up to now
	parties   map[owner]*party      // those who have sessions, or services
	waiting   map[string]*list.List // of *waiter, by the name of the need, the first first
	visitors  map[*wire.Channel]*visitor
	checks    checks
	machines  int // parties that have sessions
	sessions  int // on the LAN manager itself

	problems map[string]problem // by file
	journal  journal
	changed  bool // in this turn of the core, so that somebody could see it
}

func newLAN(m *Manager, problems []problem) *lan {
	l := &lan{
		log: m.log, crew: m.crew, door: m.door, metrics: m.metrics, grace: m.config.Grace, confirmTime: m.config.Confirm, limits: m.config.Limits,
		newID: m.gate.NewID, started: time.Now(),
		needs:    table.New(table.Needs, m.gate.NewID),
		services: table.New(table.Services, m.gate.NewID),
		nats:     table.New(table.NATs, m.gate.NewID),
		modules:  table.New(table.EngagedModules, m.gate.NewID),
		open:     map[string]*need{},
		serving:  map[string]*service{},
		parties:  map[owner]*party{},
		waiting:  map[string]*list.List{},
		visitors: map[*wire.Channel]*visitor{},
		problems: map[string]problem{},
	}
	l.checks = checks{crew: m.crew, seconds: m.metrics.portCheck}
	l.originals = newOriginals(m.settings.admitted)
	l.saver = &saver{crew: m.crew, files: m.files, report: l.report,
		repaired: func(entries []fields) { l.reopen(l.originals.adopt(entries)) }}
	for _, p := range problems {
		l.report(p)
	}
	l.read(m.files)
	for _, name := range l.originals.names {
		l.openNeed(name)
	}
	for _, name := range []string{"allexcore", "allex_dataservice"} { // as the original begins
		l.engage(name)
	}
	return l
}

// note adds to the events.
func (l *lan) note(kind, subject, text string) {
	l.journal.add(kind, subject, text)
	l.changed = true
}

// report notes what is wrong with a file, or that nothing is any more.
func (l *lan) report(p problem) {
	before, known := l.problems[p.file]
	if p.err == nil {
		if known {
			delete(l.problems, p.file)
			l.log.Info("all of " + p.file + " can be used again")
			l.note(page.File, p.file, "all of it can be used again")
		}
		return
	}
	l.problems[p.file] = p
	if !known || before.err.Error() != p.err.Error() {
		l.log.Error("can not use all of "+p.file+": "+p.consequence, "error", p.err)
		l.note(page.File, p.file, p.consequence+": "+p.err.Error())
	}
}

// engage notes that a module is in use somewhere.
func (l *lan) engage(module string) {
	record, err := table.EngagedModules.Parse(object("modulename", module))
	if err == nil {
		err = l.modules.Create(record)
	}
	if err != nil && !errors.Is(err, table.ErrExists) {
		l.log.Warn("module not noted", "module", module, "error", err)
	}
}

// addNeed wants a need from now on, also after a restart, and calls saved when
// that is so. Where it is served already nothing changes, and an open need stays
// as it is (PROTOCOL section 7).
func (l *lan) addNeed(need fields, saved func(error)) error {
	name := need.text("instancename")
	if l.serving[name] != nil {
		saved(nil)
		return nil
	}
	if err := l.originals.add(need); err != nil {
		return err
	}
	if l.openNeed(name) {
		l.note(page.NeedOpen, name, "added by a peer")
	}
	l.saver.save(l.originals, saved)
	return nil
}

// removeNeed wants a need no more. Its service, if it has one, is left alone.
func (l *lan) removeNeed(name string, saved func(error)) {
	l.originals.remove(name)
	if n := l.open[name]; n != nil {
		l.closeNeed(n)
		l.note(page.NeedClosed, name, "removed by a peer")
	}
	l.saver.save(l.originals, saved)
}

// serviceUp puts the service of a need on the table and closes the need.
func (l *lan) serviceUp(n *need, p *party, a answer) {
	record, _ := l.needs.Get(n.name)
	l.needs.Update(table.Eq("instancename", n.name), a.served())
	l.closeNeed(n)
	now := time.Now()
	text, err := table.Services.Parse(record.JSON())
	if err == nil {
		text, err = text.With(a.service(now))
	}
	if err == nil {
		err = l.services.Put(text)
	}
	if err != nil { // the record is one that we made ourselves
		l.log.Error("service could not be noted", "instance", n.name, "error", err)
		l.openNeed(n.name)
		return
	}
	l.served++
	s := &service{name: n.name, party: p, number: l.served, since: now}
	l.serving[n.name], p.services[n.name] = s, s
	l.log.Info("service up", "instance", n.name, "address", a.address, "ports", a.ports)
	l.note(page.ServiceUp, n.name, "by "+p.name+" at "+a.address+" "+a.ports.String())
}

// serviceDown takes a service off the table and opens its need again. It returns
// how many services that were.
func (l *lan) serviceDown(name string, class prometheus.Counter, reason string) int {
	s := l.serving[name]
	if s == nil {
		return 0
	}
	l.services.Delete(table.Eq("instancename", name))
	delete(l.serving, name)
	delete(s.party.services, name)
	delete(s.party.unconfirmed, name)
	l.forget(s.party)
	class.Inc()
	l.log.Info("service down", "instance", name, "reason", reason)
	l.note(page.ServiceDown, name, reason)
	if l.openNeed(name) {
		l.open[name].ended = reason
	}
	return 1
}

// serviceFails notes why a machine can not serve an open need. It tells whether
// there is one.
func (l *lan) serviceFails(name, machine, reason string) bool {
	n := l.open[name]
	if n == nil {
		return false
	}
	l.changed = true
	n.failure = machine + " started it, but " + cmp.Or(reason, "it fails")
	l.log.Info("service fails", "instance", name, "machine", machine, "reason", reason)
	if !n.failing { // who fails says so again and again
		n.failing = true
		l.note(page.ServiceFails, name, "on "+machine+": "+reason)
	}
	return true
}
