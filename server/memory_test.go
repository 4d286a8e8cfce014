package server

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/allexgo/machine-agent/agent"
	"github.com/allexgo/machine-agent/agent/journal"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// memory is an Agent without a machine: what it is told, it remembers.
type memory struct {
	mu         sync.Mutex
	err        error               // what every method answers with, if set
	owners     map[int]agent.Owner // by pid
	processes  map[string]agent.Process
	ports      []agent.PortLease
	needs      []agent.NeedDecision
	services   []agent.Service
	status     agent.Status
	change     agent.Change
	asked      int // calls of Owner
	roster     uint64
	registered []agent.Registration
	added      []table.Need
	called     []string // "Stop web", ...
	tails      []agent.Tail
	hold       chan struct{} // if set, Shutdown waits for it
	holding    chan struct{} // closed when Shutdown waits

	journal          *journal.Journal
	events           *journal.Log[agent.Event]
	watchedProcesses *journal.Table[agent.Process]
	watchedNeeds     *journal.Table[agent.NeedDecision]
	watchedServices  *journal.Table[agent.Service]
}

// eventsKept are those that memory keeps.
const eventsKept = 1000

var began = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)

// newMemory has the instances mine and other.
func newMemory() *memory {
	m := &memory{owners: map[int]agent.Owner{}, processes: map[string]agent.Process{}}
	for i, name := range []string{"mine", "other"} {
		m.processes[name] = agent.Process{Instance: name, Module: "echo", State: process.Ready,
			Place: agent.PlaceServed, Origin: agent.Started, PID: 100 + i, StartTime: began,
			Ports: table.Ports{TCP: 15000 + i, HTTP: 16000 + i, WS: 17000 + i}, LogFile: "/var/log/" + name + ".log"}
		m.needs = append(m.needs, agent.NeedDecision{
			Need:     table.Need{InstanceName: name, ModuleName: "echo", PropertyHash: []byte(`{"secret":"x"}`)},
			Decision: agent.DecisionServedHere,
		})
		m.services = append(m.services, agent.Service{Here: true, Service: table.Service{
			InstanceName: name, ModuleName: "echo", IPAddress: "10.0.0.7", PropertyHash: []byte(`{"secret":"x"}`)}})
	}
	m.journal = journal.New()
	m.events = journal.NewLog[agent.Event](m.journal, eventsKept)
	m.watchedProcesses = journal.NewTable(m.journal, 10, func(a, b agent.Process) bool { return a == b })
	m.watchedNeeds = journal.NewTable(m.journal, 10, func(agent.NeedDecision, agent.NeedDecision) bool { return false })
	m.watchedServices = journal.NewTable(m.journal, 10, func(agent.Service, agent.Service) bool { return false })
	for i, s := range m.services {
		m.watchedProcesses.Set(s.InstanceName, m.processes[s.InstanceName])
		m.watchedNeeds.Set(s.InstanceName, m.needs[i])
		m.watchedServices.Set(s.InstanceName, s)
	}
	return m
}

func (m *memory) own(pid int, o agent.Owner) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.roster++
	m.owners[pid] = o
}

// replace gives an instance another process.
func (m *memory) replace(instance string, pid int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.roster++
	p := m.processes[instance]
	p.PID, p.StartTime = pid, p.StartTime.Add(time.Second)
	m.processes[instance] = p
}

func (m *memory) timesAsked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

func (m *memory) last() agent.Registration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.registered[len(m.registered)-1]
}

func (m *memory) connect(connected bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Link.Connected = connected
}

func (m *memory) find(what, instance string) (agent.Process, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.called = append(m.called, what+" "+instance)
	if m.err != nil {
		return agent.Process{}, m.err
	}
	p, ok := m.processes[instance]
	if !ok {
		return p, &agent.Error{Kind: agent.NotFound, Reason: agent.InstanceNotFound,
			Message: fmt.Sprintf("there is no instance %q", instance), Metadata: map[string]string{"instance": instance}}
	}
	return p, nil
}

func (m *memory) Roster() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.roster
}

func (m *memory) Owner(_ context.Context, pid int) (agent.Owner, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	return m.owners[pid], nil
}

func (m *memory) Register(_ context.Context, r agent.Registration) (agent.Process, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return agent.Process{}, m.err
	}
	if len(m.registered) == 100 {
		m.registered = m.registered[:0] // of no use to a benchmark
	}
	m.registered = append(m.registered, r)
	name := r.Instance
	if name == "" {
		name = r.Caller
	}
	p := m.processes[name]
	p.Instance, p.StatusText = name, r.StatusText
	return p, nil
}

func (m *memory) ReportDown(_ context.Context, instance, _ string) (agent.Process, error) {
	return m.find("ReportDown", instance)
}

func (m *memory) Process(_ context.Context, instance string) (agent.Process, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return agent.Process{}, m.err
	}
	p, ok := m.processes[instance]
	if !ok {
		return p, &agent.Error{Kind: agent.NotFound, Reason: agent.InstanceNotFound, Message: "there is no instance " + instance}
	}
	return p, nil
}

func (m *memory) Processes(context.Context) (agent.List[agent.Process], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]agent.Process, 0, len(m.processes))
	for _, p := range m.processes {
		all = append(all, p)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Instance < all[j].Instance })
	return agent.List[agent.Process]{At: m.journal.Position(), Items: all}, m.err
}

func (m *memory) WatchProcesses(from journal.Start) (*journal.Reader[agent.Process], error) {
	return m.watchedProcesses.Open(from)
}

// Usage is told of mine only, as if other had no process.
func (m *memory) Usage(_ context.Context, instances []string) (map[string]process.Usage, error) {
	all := map[string]process.Usage{}
	for _, name := range instances {
		if name == "mine" {
			all[name] = process.Usage{CPU: 1500 * time.Millisecond, Memory: 1 << 32, Descriptors: 7, Threads: 5, Processes: 2}
		}
	}
	return all, m.err
}

func (m *memory) Stop(_ context.Context, instance string) (agent.Process, error) {
	return m.find("Stop", instance)
}

func (m *memory) Start(_ context.Context, instance string) (agent.Process, error) {
	return m.find("Start", instance)
}

func (m *memory) Restart(_ context.Context, instance string) (agent.Process, error) {
	return m.find("Restart", instance)
}

func (m *memory) Signal(_ context.Context, instance, signal string) error {
	_, err := m.find("Signal "+signal, instance)
	return err
}

// TailLogs gives pieces without end to whoever follows.
func (m *memory) TailLogs(ctx context.Context, t agent.Tail, give func(agent.LogPiece) error) error {
	if _, err := m.find("TailLogs", t.Instance); err != nil {
		return err
	}
	m.mu.Lock()
	m.tails = append(m.tails, t)
	m.mu.Unlock()
	p := agent.LogPiece{Position: 4096, Missing: 96, Data: make([]byte, 32<<10)}
	for {
		if err := give(p); err != nil || !t.Follow {
			return err
		}
		p.Position += int64(len(p.Data))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (m *memory) Ports(context.Context) ([]agent.PortLease, error) { return m.ports, m.err }

func (m *memory) ReservePort(_ context.Context, r agent.Reservation) (agent.PortLease, error) {
	return agent.PortLease{Lease: port.Lease{Port: r.Port, Instance: r.Instance}, PID: r.PID}, m.err
}

func (m *memory) ReleasePort(context.Context, int, string) error {
	return m.err
}

func (m *memory) CheckPort(context.Context, int) (agent.PortCheck, error) {
	return agent.PortCheck{Free: true}, m.err
}

func (m *memory) ServiceOf(_ context.Context, instance string) (agent.Service, error) {
	for _, s := range m.services {
		if s.InstanceName == instance {
			return s, m.err
		}
	}
	return agent.Service{}, &agent.Error{Kind: agent.NotFound, Reason: agent.ServiceNotFound, Metadata: map[string]string{"instance": instance}}
}

func (m *memory) Resolve(_ context.Context, address string, number int) (string, int, bool, error) {
	return address, number, false, m.err
}

func (m *memory) Modules(context.Context) ([]agent.ModuleState, string, error) {
	return []agent.ModuleState{{Module: &module.Module{Name: "echo", Command: []string{"/bin/echo", "secret"}}}}, "", m.err
}

func (m *memory) Reload(context.Context, bool) (agent.Change, error) { return m.change, m.err }

func (m *memory) SetLogLevel(string) (string, error) { return "info", m.err }

func (m *memory) Needs(context.Context) (agent.List[agent.NeedDecision], error) {
	return agent.List[agent.NeedDecision]{At: m.journal.Position(), Items: m.needs}, m.err
}

func (m *memory) WatchNeeds(from journal.Start) (*journal.Reader[agent.NeedDecision], error) {
	return m.watchedNeeds.Open(from)
}

func (m *memory) Services(context.Context) (agent.List[agent.Service], error) {
	return agent.List[agent.Service]{At: m.journal.Position(), Items: m.services}, m.err
}

func (m *memory) WatchServices(from journal.Start) (*journal.Reader[agent.Service], error) {
	return m.watchedServices.Open(from)
}

func (m *memory) WatchEvents(from journal.Start) (*journal.Reader[agent.Event], error) {
	return m.events.Open(from)
}

func (m *memory) AddNeed(_ context.Context, n table.Need) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.added = append(m.added, n)
	return m.err
}

func (m *memory) RemoveNeed(_ context.Context, instance string) error {
	_, err := m.find("RemoveNeed", instance)
	return err
}

func (m *memory) Pulse(ctx context.Context) (agent.Status, error) { return m.Status(ctx) }

func (m *memory) Status(context.Context) (agent.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status, m.err
}

func (m *memory) Drain(context.Context) (int, error) { return len(m.processes), m.err }

func (m *memory) Resume(context.Context) error { return m.err }

// Shutdown waits as long as hold says, or until ctx ends.
func (m *memory) Shutdown(ctx context.Context) (int, error) {
	if m.hold != nil {
		close(m.holding)
		select {
		case <-m.hold:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return len(m.processes), m.err
}
