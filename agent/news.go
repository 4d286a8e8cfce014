package agent

import (
	"bytes"
	"strings"
	"time"

	"github.com/allexgo/machine-agent/agent/journal"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// This file is what the loop tells those who watch. The loop writes the journal
// and never waits for a reader.

// Event is something that happened on this machine, or that it was told of the
// LAN. It never changes.
type Event struct {
	Time     time.Time
	Kind     EventKind
	Instance string // empty if it happened to none
	Module   string // as far as it is known
	PID      int
	ServedAt string        // of ServiceSet: the address of the machine
	Exit     *process.Exit // of ProcessEnded
	Decision Decision      // of NeedDecided
	Detail   string        // why, or what more there is to say
}

// EventKind is what happened; those of event.proto.
type EventKind int

const (
	LinkUp EventKind = iota + 1
	LinkDown
	NeedOpened
	NeedClosed
	NeedDecided
	ServiceSet
	ServiceGone
	ProcessStarted
	ProcessNotStarted
	ProcessAdopted
	ProcessRegistered
	ProcessReady
	ProcessWithdrawn
	ProcessStopping
	ProcessEnded
	ReportedDown
	InstanceHold
	InstanceLetGo
	Drained
	Resumed
	Reloaded
)

const (
	eventsKept = 4096 // in memory, some hundred bytes each
	goneKept   = 4096 // of the instances of each table that are gone
)

// news is the journal of an agent.
type news struct {
	journal   *journal.Journal
	events    *journal.Log[Event]
	processes *journal.Table[Process]
	needs     *journal.Table[NeedDecision]
	services  *journal.Table[Service]
}

func newNews() *news {
	j := journal.New()
	return &news{
		journal:   j,
		events:    journal.NewLog[Event](j, eventsKept),
		processes: journal.NewTable(j, goneKept, func(a, b Process) bool { return a == b }),
		needs:     journal.NewTable(j, goneKept, sameNeed),
		services:  journal.NewTable(j, goneKept, sameService),
	}
}

// sameNeed tells whether two decisions differ only in when the agent looks
// again, which is another time at each look.
func sameNeed(a, b NeedDecision) bool {
	return a.Decision == b.Decision && a.Detail == b.Detail && a.ServedAt == b.ServedAt &&
		a.Need.ModuleName == b.Need.ModuleName && a.Need.IPAddress == b.Need.IPAddress &&
		a.Need.Ports == b.Need.Ports && bytes.Equal(a.Need.PropertyHash, b.Need.PropertyHash)
}

func sameService(a, b Service) bool {
	return a.Here == b.Here && a.ModuleName == b.ModuleName && a.IPAddress == b.IPAddress &&
		a.Ports == b.Ports && bytes.Equal(a.PropertyHash, b.PropertyHash)
}

// Service is the LAN's record of a service.
type Service struct {
	table.Service
	Here bool // the process is one of ours
}

// WatchEvents reads the events of this machine, those that are kept first. The
// key is the instance. Errors: *journal.CompactedError, journal.ErrAhead.
func (a *Agent) WatchEvents(from journal.Start) (*journal.Reader[Event], error) {
	return a.news.events.Open(from)
}

// WatchProcesses reads what Processes tells, and what changes of it. Errors: as
// WatchEvents.
func (a *Agent) WatchProcesses(from journal.Start) (*journal.Reader[Process], error) {
	return a.news.processes.Open(from)
}

// WatchNeeds reads what Needs tells, and what changes of it. Errors: as
// WatchEvents.
func (a *Agent) WatchNeeds(from journal.Start) (*journal.Reader[NeedDecision], error) {
	return a.news.needs.Open(from)
}

// WatchServices reads what Services tells, and what changes of it. Errors: as
// WatchEvents.
func (a *Agent) WatchServices(from journal.Start) (*journal.Reader[Service], error) {
	return a.news.services.Open(from)
}

// happened notes an event.
func (l *loop) happened(e Event) {
	switch e.Kind {
	case ProcessStarted, ProcessAdopted, ProcessRegistered, ProcessEnded:
		l.roster.Add(1)
	}
	e.Time = time.Now()
	e.Instance, e.Module, e.ServedAt, e.Detail = clipped(e.Instance, mostText), clipped(e.Module, mostText), clipped(e.ServedAt, mostText), clipped(e.Detail, mostText)
	l.news.events.Add(e.Instance, e)
}

// happenedTo notes an event of an instance, or of its process if it has one.
func (l *loop) happenedTo(i *instance, kind EventKind, detail string) {
	e := Event{Kind: kind, Instance: i.name, Module: i.module(), Detail: detail}
	if i.child != nil {
		e.PID = i.child.pid()
	}
	l.happened(e)
}

// touch has an instance shown anew at the end of this turn of the loop.
func (l *loop) touch(i *instance) {
	if !i.touched {
		i.touched = true
		l.touched = append(l.touched, i)
	}
}

// publish shows what has changed in this turn of the loop.
func (l *loop) publish() {
	// Whether there is room for more decides on all that wait for it.
	if full := l.MaxProcesses > 0 && l.occupied >= l.MaxProcesses; full != l.full {
		l.full = full
		for _, i := range l.queue {
			l.touch(i)
		}
	}
	for _, i := range l.touched {
		i.touched = false
		l.show(i)
	}
	if cap(l.touched) > 1024 { // a new session touches all
		l.touched = nil
	}
	l.touched, l.silent = l.touched[:0], false
}

// show writes what is told of an instance.
func (l *loop) show(i *instance) {
	if l.instances[i.name] != i {
		if l.instances[i.name] != nil {
			return // another one of that name is shown
		}
		i = &instance{name: i.name}
	}
	if i.told() {
		l.news.processes.Set(i.name, l.snapshot(i))
	} else {
		l.news.processes.Delete(i.name)
	}
	if i.service != nil {
		l.news.services.Set(i.name, l.serviceOf(i))
	} else {
		l.news.services.Delete(i.name)
	}
	if !i.asked() {
		l.news.needs.Delete(i.name)
		return
	}
	d := l.needDecision(i)
	was, changed := l.news.needs.Set(i.name, d)
	if changed && was.Decision != d.Decision && !l.silent {
		l.happened(Event{Kind: NeedDecided, Instance: i.name, Module: d.Need.ModuleName, ServedAt: d.ServedAt, Decision: d.Decision, Detail: d.Detail})
	}
}

// serviceOf is the LAN's record of an instance that has one.
func (l *loop) serviceOf(i *instance) Service {
	return Service{Service: *i.service, Here: i.place(l.address()) == PlaceServed}
}

// module is that of an instance, as far as it is known.
func (i *instance) module() string {
	switch {
	case i.child != nil:
		return i.lastModule
	case i.need != nil:
		return i.need.ModuleName
	case i.service != nil:
		return i.service.ModuleName
	}
	return i.lastModule
}

// mostText bounds, in bytes, each text of an event: thousands are kept, and much of it
// comes from the LAN.
const mostText = 2 << 10

// clipped is a text, or as much of it as may be.
func clipped(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(strings.Clone(text[:most]), "") + "..."
}
