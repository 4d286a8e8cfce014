// Package agent is the core: it turns the LAN's needs into this machine's
// processes and a process's end into a need again (design section 4).
//
// One goroutine, the loop, owns all that is known of instances, bids and
// ports; it has one inbox and waits for nothing else. Each process has one
// goroutine, its keeper, which does what takes time and reports to the inbox.
// The exported methods of Agent ask the loop and may be called from any
// goroutine. The package knows nothing of gRPC; server and cmd import it.
package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.opentelemetry.io/otel/trace"

	"github.com/allexgo/machine-agent/agent/config"
	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/metrics"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/notify"
	"github.com/allexgo/machine-agent/agent/output"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
)

// flushWithin is how long an agent that leaves waits for the LAN manager to
// have taken its last reports.
const flushWithin = time.Second

// inboxSize is how many events wait for the loop. Who has one more waits with it.
const inboxSize = 256

// Config is what an Agent is made of.
type Config struct {
	config.Config
	Catalogue *module.Catalogue // at the start
	// Load reads the files anew that Config and Catalogue came from, for Reload;
	// nil: there are none.
	Load  func() (config.Config, *module.Catalogue, error)
	Store *state.Store
	// Cgroups is the directory below which every child gets a cgroup of its
	// own; empty if this machine lets us have none.
	Cgroups string
	// Notify is where processes say how they are; nil: there is none, and modules
	// whose processes do do not start. Run closes it.
	Notify   *notify.Socket
	Launcher string   // absolute path of agentexec; empty: there is none, and modules with limits do not start
	Children Children // nil: no child is asked anything over a socket of its own
	Version  string
	// Sockets are those of port leases, by port, that the agent had that this
	// process was before.
	Sockets map[int]*os.File
	// Depot keeps those that are passed on for the next agent, whatever ends this
	// one; nil: there is none.
	Depot   port.Depot
	Upgrade Upgrade // the last one; zero if there was none
	// Warnings are for GetStatus, of what stays as it was at the start. Those of the
	// configuration are not among them: Status looks at that anew.
	Warnings  []string
	Directory string           // where the configuration is, for GetStatus
	Figures   *metrics.Figures // what is counted; nil: nothing is
	Tracer    trace.Tracer     // of the traces of needs; nil: there are none
	Logger    hclog.Logger
}

// Agent manages the processes of one machine. Make it with New, let it work
// with Run.
type Agent struct {
	Config
	started time.Time
	inbox   chan func(*loop)
	done    chan struct{} // closed when nobody reads the inbox any more
	link    *link.Link
	logs    *output.Logs
	readers readers
	tasks   sync.WaitGroup // keepers and stoppers
	keeping keeping
	late    late
	kernel  *process.KernelLog // nil: it can not be read
	news    *news

	roster   atomic.Uint64   // of Roster
	commands chan struct{}   // has an element for each that asks how a process is
	looking  chan struct{}   // whoever has put something in looks at the system (turn)
	staying  context.Context // ends when nothing is waited for any more, because the agent leaves
	abandon  context.CancelFunc
	lacking  map[string]error // controllers of cgroups that can not be had, and why

	reloading sync.Mutex
	catalogue atomic.Pointer[module.Catalogue] // since the last reload; nil: there was none
}

// late are the events that came when the loop had ended.
type late struct {
	sync.Mutex
	events []func(*loop)
}

// New makes an Agent that does nothing until Run.
func New(c Config) *Agent {
	a := &Agent{
		Config:  c,
		started: time.Now(),
		inbox:   make(chan func(*loop), inboxSize),
		done:    make(chan struct{}),
		news:    newNews(),

		commands: make(chan struct{}, commandsAtOnce()),
		looking:  make(chan struct{}, 1),
		lacking:  make(map[string]error),
	}
	a.staying, a.abandon = context.WithCancel(context.Background())
	for _, name := range (process.Limits{Memory: 1, CPU: 1, PIDs: 1}).Controllers() {
		if err := process.Controller(c.Cgroups, name); err != nil {
			a.lacking[name] = err
		}
	}
	a.logs = output.New(output.Config{Directory: c.Store.LogDirectory(), MaxTotal: c.Log.MaxTotal, Logger: c.Logger.Named("output")})
	c.Store.OnStuck(func(more int, since time.Time) { a.post(func(l *loop) { l.onStuck(more, since) }) })
	for _, w := range a.logs.Warnings {
		c.Logger.Warn(w)
	}
	a.Warnings = append(slices.Clip(a.Warnings), a.logs.Warnings...)
	a.link = link.New(link.Config{
		Addresses: c.LANManager.Addresses(),
		LocalIP:   config.LocalIP(c.Address),
		Address:   c.Address,
		Name:      c.Name,
		ID:        c.Store.AgentID(),
		Secrets:   c.LANManager.Secrets,
		Emit:      a.onLink,
		Logger:    c.Logger.Named("link"),
	})
	return a
}

func loopback(address string) bool {
	ip := net.ParseIP(address)
	return ip != nil && ip.IsLoopback()
}

// Run takes over the processes of the agent before this one, and then serves
// needs until ctx ends or Shutdown has stopped everything. When ctx ends the
// children stay. No goroutine is left when it returns; the error is nil
// unless the state directory can not be read.
func (a *Agent) Run(ctx context.Context) error {
	defer a.news.journal.End()
	var err error
	if a.kernel, err = process.OpenKernelLog(); err != nil {
		a.Logger.Debug("whom the system ends for want of memory is not told from others that are killed", "error", err)
	}
	defer a.kernel.Close()
	if a.Notify != nil {
		defer a.Notify.Close()
	}
	l := newLoop(a)
	if err := l.adopt(); err != nil {
		close(a.done)
		return err
	}
	var hearing sync.WaitGroup
	if a.Notify != nil {
		hearing.Go(a.Notify.Serve)
		defer hearing.Wait()
		defer a.Notify.Close()
	}
	linked, unlink := context.WithCancel(context.WithoutCancel(ctx))
	linkEnded := make(chan struct{})
	go func() {
		defer close(linkEnded)
		_ = a.link.Run(linked) // it ends only when it is told to
	}()
	keeping, stopKeeping := context.WithCancel(context.WithoutCancel(ctx))
	a.tasks.Go(func() { a.logs.Run(keeping) })
	a.tasks.Go(func() { a.Store.Run(keeping) })
	l.run(ctx)
	close(a.done)
	l.finish()
	flush, stop := context.WithTimeout(linked, flushWithin)
	a.link.Flush(flush)
	stop()
	unlink()
	<-linkEnded
	l.letGo()
	defer time.AfterFunc(emptyLeaving, a.abandon).Stop()
	stopKeeping()
	a.tasks.Wait()
	a.Store.Settle()
	l.hearLate()
	l.ports.Close()
	if a.Cgroups != "" {
		process.RemoveCgroups(a.Cgroups)
	}
	return nil
}

// post hands an event to the loop. When the loop has ended it is kept for
// hearLate.
func (a *Agent) post(event func(*loop)) {
	select {
	case <-a.done:
	default:
		select {
		case a.inbox <- event:
			return
		case <-a.done:
		}
	}
	a.late.Lock()
	defer a.late.Unlock()
	a.late.events = append(a.late.events, event)
}

// ask has the loop answer a question.
func ask[T any](ctx context.Context, a *Agent, question func(*loop) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	var none T
	select {
	case a.inbox <- func(l *loop) {
		v, err := question(l)
		answers <- answer{v, err}
	}:
	case <-a.done:
		return none, leaving()
	case <-ctx.Done():
		return none, ctx.Err()
	}
	select {
	case got := <-answers:
		return got.value, got.err
	case <-a.done:
		// The loop may have answered with its last breath.
		select {
		case got := <-answers:
			return got.value, got.err
		default:
			return none, leaving()
		}
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

func leaving() *Error {
	return &Error{Kind: Unavailable, Reason: ShuttingDown, Message: "the agent is leaving; ask again when it is back"}
}

// startsAtOnce is how many starts may be in flight, so that the machines of a
// LAN share a burst of needs (design section 4.3).
func startsAtOnce() int { return 2 * runtime.NumCPU() }

// newOffice is a port office for the ranges of the configuration.
func (a *Agent) newOffice() *port.Office {
	o := port.NewOffice(a.PortRanges[0], a.PortRanges[1], a.PortRanges[2], a.PortQuarantine)
	o.Inherit(a.Sockets)
	o.Deposit(a.Depot)
	return o
}

// PortSockets are the sockets of all leases, by port, opened once more for the
// agent that this process is about to become. The error says that there must be none
// after this one: it shuts down.
func (a *Agent) PortSockets(ctx context.Context) (map[int]*os.File, error) {
	return ask(ctx, a, func(l *loop) (map[int]*os.File, error) {
		if l.shutdown {
			return nil, leaving()
		}
		return l.ports.Duplicates(), nil
	})
}

func (a *Agent) status() Status {
	return Status{
		Version:      a.Version,
		Name:         a.Name,
		PID:          os.Getpid(),
		StartTime:    a.started,
		MaxProcesses: a.MaxProcesses,
		Cgroups:      a.Cgroups != "",
		Warnings:     a.Warnings,
		Directory:    a.Directory,
		Upgrade:      a.Upgrade,
	}
}

// Warnings are what a configuration allows and is still not good, as this machine is
// now.
func Warnings(c config.Config) []string {
	return append(port.Check(c.PortRanges[:]...), c.LANManager.Warnings()...)
}

// cgroup is the directory of an instance's cgroup; empty without cgroups.
func (a *Agent) cgroup(instance string) (string, error) {
	if a.Cgroups == "" {
		return "", nil
	}
	name, err := state.FileName(instance)
	if err != nil {
		return "", fmt.Errorf("cgroup of instance: %w", err)
	}
	// The kernel's own files in a cgroup have names without a dash.
	return filepath.Join(a.Cgroups, "i-"+name), nil
}
