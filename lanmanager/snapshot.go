package lanmanager

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lanmanager/page"
)

// Changed implements page.Source.
func (m *Manager) Changed(ctx context.Context, since uint64) (uint64, error) {
	return m.news.wait(ctx, m.crew.ctx, since)
}

// Snapshot implements page.Source. In the core what there is is only gathered:
// records do not change, so they are read after that.
func (m *Manager) Snapshot(ctx context.Context) (*page.Snapshot, error) {
	var s survey
	if err := m.crew.ask(ctx, func() { s = m.lan.survey(m.news.now()) }); err != nil {
		return nil, err
	}
	snapshot := s.snapshot()
	snapshot.Version = m.config.Version
	for _, l := range m.config.Listeners {
		snapshot.Listeners = append(snapshot.Listeners, l.String())
	}
	return snapshot, nil
}

// survey is what the core says of itself.
type survey struct {
	revision uint64
	time     time.Time
	started  time.Time
	problems []problem
	needs    []needView
	services []serviceView
	machines []page.Machine
	nats     []table.Record
	events   []page.Event
}

// needView is a need as it is for people.
type needView struct {
	record table.Record
	source string
	open   bool
	since  time.Time
	view   openView
}

// openView is why a need is open.
type openView struct {
	constraint     string
	bids           int
	holder         string // who was challenged
	held           time.Time
	trying         bool // the ports of its response
	ended, failure string
}

type serviceView struct {
	record      table.Record
	owner       string
	since       time.Time
	unconfirmed bool
}

func (l *lan) survey(revision uint64) survey {
	s := survey{revision: revision, time: time.Now(), started: l.started, events: l.journal.all(),
		needs:    make([]needView, 0, len(l.originals.records)),
		services: make([]serviceView, 0, l.services.Len()),
		machines: make([]page.Machine, 0, len(l.parties)),
	}
	for _, name := range l.originals.names {
		if record, wanted := l.originals.record(name); wanted {
			s.needs = append(s.needs, l.needView(name, record))
		}
	}
	for name, record := range l.services.All() {
		of := l.serving[name]
		_, unconfirmed := of.party.unconfirmed[name]
		s.services = append(s.services, serviceView{record, of.party.name, of.since, unconfirmed})
	}
	for _, p := range l.parties {
		s.machines = append(s.machines, p.machine())
	}
	for _, record := range l.nats.All() {
		s.nats = append(s.nats, record)
	}
	for _, p := range l.problems {
		s.problems = append(s.problems, p)
	}
	return s
}

func (l *lan) needView(name string, record table.Record) needView {
	v := needView{record: record, source: l.originals.source(name)}
	if s := l.serving[name]; s != nil {
		v.since = s.since
	}
	n := l.open[name]
	if n == nil {
		return v
	}
	v.open, v.since = true, n.since
	v.view = openView{constraint: n.constraint, bids: n.bids, ended: n.ended, failure: n.failure}
	if n.bid != nil {
		v.view.holder, v.view.held = n.bid.bidder.party.name, n.bid.since
		v.view.trying = n.bid.response != nil
	}
	return v
}

func (p *party) machine() page.Machine {
	m := page.Machine{Name: p.name, ID: p.owner.id, Address: p.address.String(), Kind: "agent",
		Sessions: p.sessions, Services: len(p.services), Since: p.since, Connected: p.sessions > 0}
	if p.owner.id == "" {
		m.Kind = "original"
	}
	for _, e := range []Envelope{WebSocket, SignalR} {
		if p.envelopes[e] > 0 {
			m.Envelopes = append(m.Envelopes, string(e))
		}
	}
	return m
}

// snapshot reads the records of a survey.
func (s survey) snapshot() *page.Snapshot {
	slices.SortFunc(s.machines, func(a, b page.Machine) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Address, b.Address))
	})
	slices.SortFunc(s.problems, func(a, b problem) int { return cmp.Compare(a.file, b.file) })
	t := &page.Snapshot{Revision: s.revision, Time: s.time, Started: s.started, Machines: s.machines, Events: s.events}
	for _, p := range s.problems {
		t.Problems = append(t.Problems, page.Problem{File: p.file, Consequence: p.consequence, Text: p.err.Error()})
	}
	reasons := newReasons(s.machines)
	for _, n := range s.needs {
		t.Needs = append(t.Needs, n.need(reasons))
	}
	for _, v := range s.services {
		r := table.ParseService(v.record)
		t.Services = append(t.Services, page.Service{Instance: r.InstanceName, Module: r.ModuleName, Address: r.IPAddress,
			TCP: r.Ports.TCP, HTTP: r.Ports.HTTP, WS: r.Ports.WS, Owner: v.owner, Since: v.since, Unconfirmed: v.unconfirmed})
	}
	for _, record := range s.nats {
		t.NAT = append(t.NAT, page.NAT{IAddress: record.Text("iaddress"), IPort: plain(record.Get("iport")),
			EAddress: record.Text("eaddress"), EPort: plain(record.Get("eport"))})
	}
	return t
}

// plain is a port or a range of ports.
func plain(value json.RawMessage) string {
	return strings.ReplaceAll(strings.Trim(string(value), "[]"), ",", "-")
}

func (n needView) need(reasons *reasons) page.Need {
	r := table.ParseNeed(n.record)
	need := page.Need{Instance: r.InstanceName, Module: r.ModuleName, Address: r.IPAddress,
		Ports: portList(r.Ports), Open: n.open, Since: n.since, Source: n.source}
	if n.open {
		need.Why = reasons.why(n.view)
	}
	return need
}

func portList(p table.Ports) string {
	var texts []string
	for _, port := range []struct {
		name   string
		number int
	}{{"tcp", p.TCP}, {"http", p.HTTP}, {"ws", p.WS}} {
		if port.number != 0 {
			texts = append(texts, port.name+" "+strconv.Itoa(port.number))
		}
	}
	return strings.Join(texts, " ")
}

// reasons says why needs are open.
type reasons struct {
	addresses []string        // of connected machines
	matches   map[string]bool // whether one of them matches a constraint
}

func newReasons(machines []page.Machine) *reasons {
	r := &reasons{matches: map[string]bool{}}
	for _, m := range machines {
		if m.Connected {
			r.addresses = append(r.addresses, m.Address)
		}
	}
	return r
}

// why is one sentence, of what is known the one that helps most.
func (r *reasons) why(v openView) string {
	const clock = "15:04:05"
	switch {
	case v.trying:
		return v.holder + " says that it serves it since " + v.held.Format(clock) + "; its ports are being tried."
	case v.holder != "":
		return "Waits for " + v.holder + ", which was asked to serve it at " + v.held.Format(clock) + after(v.failure) + "."
	case v.failure != "":
		return "Last, " + v.failure + "; " + r.connected() + "."
	case len(r.addresses) > 0 && !r.match(v.constraint):
		return "No connected machine has the address that it wants, " + v.constraint + "."
	case v.ended != "":
		return "Its service went down: " + v.ended + "; nobody has bid for it since, " + r.connected() + "."
	}
	return "Nobody has bid for it yet; " + r.connected() + "."
}

func after(failure string) string {
	if failure == "" {
		return ""
	}
	return ", after " + failure
}

func (r *reasons) connected() string {
	switch n := len(r.addresses); n {
	case 0:
		return "no agent is connected"
	case 1:
		return "1 agent is connected"
	default:
		return strconv.Itoa(n) + " agents are connected"
	}
}

func (r *reasons) match(constraint string) bool {
	matches, known := r.matches[constraint]
	if !known {
		n := need{constraint: constraint}
		matches = slices.ContainsFunc(r.addresses, n.admits)
		r.matches[constraint] = matches
	}
	return matches
}

var _ page.Source = (*Manager)(nil)
