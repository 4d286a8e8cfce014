package lanmanager

import (
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/lan/table"
)

// lan is the state of the LAN: what must run, what runs, and whose it is. It
// belongs to the core; every method runs there.
type lan struct {
	log   hclog.Logger
	crew  *crew
	grace time.Duration
	newID func() string

	needs    *table.Table // the open needs
	services *table.Table
	nats     *table.Table
	modules  *table.Table

	originals *originals // the needs as they were asked for, open or not
	saver     *saver
	open      map[string]*need        // what there is to the records of needs
	owners    map[string]owner        // of the records of services
	parties   map[owner]*party        // those who have sessions, or services to be confirmed
	watchers  map[*needsUser]struct{} // the sessions on needs
}

func newLAN(c Config, crew *crew, files *files, newID func() string) *lan {
	l := &lan{
		log: c.Logger, crew: crew, grace: c.Grace, newID: newID,
		needs:     table.New(table.Needs, newID),
		services:  table.New(table.Services, newID),
		nats:      table.New(table.NATs, newID),
		modules:   table.New(table.EngagedModules, newID),
		originals: newOriginals(),
		open:      map[string]*need{},
		owners:    map[string]owner{},
		parties:   map[owner]*party{},
		watchers:  map[*needsUser]struct{}{},
	}
	l.saver = &saver{crew: crew, log: c.Logger, path: files.runtime}
	l.read(files)
	for _, name := range l.originals.names {
		l.openNeed(name)
	}
	for _, name := range []string{"allexcore", "allex_dataservice"} { // as the original begins
		l.engage(name)
	}
	return l
}

// read takes in what the files hold. Nothing in them stops the LAN manager.
func (l *lan) read(files *files) {
	static, err := files.read(files.needs)
	l.report(files.needs, "there are no needs from it", err)
	for _, text := range static {
		l.report(files.needs, "this need is skipped", l.originals.addStatic(text))
	}
	runtime, err := files.read(files.runtime)
	l.report(files.runtime, "needs that were added are missing, and none can be added for good until it is repaired", err)
	l.saver.broken = err
	for _, text := range runtime {
		l.report(files.runtime, "this need is skipped", l.originals.addRuntime(text))
	}
	nats, err := files.read(files.nat)
	l.report(files.nat, "addresses are not translated", err)
	for _, text := range nats {
		record, err := table.NATs.Parse(text)
		if err == nil {
			err = l.nats.Put(record)
		}
		l.report(files.nat, "this entry is skipped", err)
	}
}

func (l *lan) report(file, consequence string, err error) {
	if err != nil {
		l.log.Error("can not use all of "+file+": "+consequence, "error", err)
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
	if _, served := l.services.Get(name); served {
		saved(nil)
		return nil
	}
	if err := l.originals.add(need); err != nil {
		return err
	}
	l.openNeed(name)
	l.saver.save(l.originals, saved)
	return nil
}

// removeNeed wants a need no more. Its service, if it has one, is left alone.
func (l *lan) removeNeed(name string, saved func(error)) {
	l.originals.remove(name)
	if n := l.open[name]; n != nil {
		l.closeNeed(n)
	}
	l.saver.save(l.originals, saved)
}

// serviceUp puts the service of a need on the table and closes the need.
func (l *lan) serviceUp(n *need, o owner, a answer) {
	record, _ := l.needs.Get(n.name)
	l.needs.Update(table.Eq("instancename", n.name), a.served())
	l.closeNeed(n)
	service, err := table.Services.Parse(record.JSON())
	if err == nil {
		service, err = service.With(a.service(time.Now()))
	}
	if err == nil {
		err = l.services.Put(service)
	}
	if err != nil { // the record is one that we made ourselves
		l.log.Error("service could not be noted", "instance", n.name, "error", err)
		l.openNeed(n.name)
		return
	}
	l.owners[n.name] = o
	l.log.Info("service up", "instance", n.name, "address", a.address, "ports", a.ports)
}

// serviceDown takes a service off the table and opens its need again. It returns
// how many services that were.
func (l *lan) serviceDown(name, reason string) int {
	if l.services.Delete(table.Eq("instancename", name)) == 0 {
		return 0
	}
	o := l.owners[name]
	delete(l.owners, name)
	if p := l.parties[o]; p != nil {
		delete(p.unconfirmed, name)
		l.forget(p)
	}
	l.log.Info("service down", "instance", name, "reason", reason)
	l.openNeed(name)
	return 1
}
