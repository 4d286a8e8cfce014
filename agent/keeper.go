package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/probe"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/lan/table"
)

// emptyWithin is how long the rest of a tree may take to die after SIGKILL. A
// process that the kernel holds for longer is reported and left.
const emptyWithin = 10 * time.Second

// keeper is the side of a process that takes time: disk, fork, waiting. It has
// one goroutine from the start or the adoption to the end, parked most of its
// life, and tells the loop what happened. The loop calls its methods and sets
// process; everything else is the keeper's.
type keeper struct {
	agent *Agent
	name  string

	process    *process.Process // set by the loop; nil until started
	registered chan struct{}    // closed by register
	register   func()           // says that RegisterProcess was called; may be called again
	ended      chan struct{}    // closed by the keeper when the leader is gone

	mu     sync.Mutex
	record state.Record
	gone   bool             // nothing is written any more
	opened *process.Process // as soon as there is one, be it that the loop has not heard of it
	left   bool             // the agent leaves
}

func (a *Agent) newKeeper(r state.Record) *keeper {
	registered := make(chan struct{})
	return &keeper{
		agent:      a,
		name:       r.Instance,
		record:     r,
		registered: registered,
		register:   sync.OnceFunc(func() { close(registered) }),
		ended:      make(chan struct{}),
	}
}

// startChild does everything between the decision to start and the end of the
// process: intent, start, readiness, death, the rest of the tree.
func (k *keeper) startChild(spec process.Spec, until readiness) {
	k.agent.tasks.Go(func() {
		until.logFrom = size(until.log)
		if err := k.save(func(r *state.Record) { r.LogFrom = until.logFrom }); err != nil {
			k.notStarted(fmt.Errorf("its start could not be recorded: %w", err))
			return
		}
		p, err := process.Start(spec)
		if err != nil {
			k.notStarted(err)
			return
		}
		began := time.Now()
		k.open(p)
		// First the loop, so that a quick child is known when it calls.
		k.tell(func(l *loop, c *child) { l.onStarted(c, p, began) })
		if err := k.save(func(r *state.Record) {
			r.Phase, r.Identity, r.StartTime = state.Running, p.Identity(), began
		}); err != nil {
			k.agent.Logger.Error("a running process could not be recorded; if the agent is killed now it will not be known again",
				"instance", k.name, "pid", p.Identity().PID, "error", err)
		}
		// On a goroutine of its own: the stack of this one has grown by the
		// start, and would be kept as long as the process lives.
		k.agent.tasks.Go(func() { k.watch(p, until) })
	})
}

// size is that of a file; 0 if there is none.
func size(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return info.Size()
}

// adoptChild takes over a process that an agent before this one started, or
// that registered itself.
func (k *keeper) adoptChild(p *process.Process, until readiness) {
	k.process = p
	k.open(p)
	k.agent.tasks.Go(func() { k.watch(p, until) })
}

// open notes that there is a process, which is let go at once if the agent is
// leaving.
func (k *keeper) open(p *process.Process) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.opened = p
	if k.left {
		p.Close()
	}
}

// leave lets the process go, or lets it go as soon as there is one. The loop
// calls it when it takes no events any more.
func (k *keeper) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left = true
	if k.opened != nil {
		k.opened.Close()
	}
}

// watch is the life of a running process. The order of its end is that of
// design section 4.5: the end is seen without reaping, the loop tells the LAN
// manager, the tree is ended, the leader is reaped, and only then the loop
// lets the leases move on.
func (k *keeper) watch(p *process.Process, until readiness) {
	alive, dead := context.WithCancel(context.Background())
	var ready sync.WaitGroup
	if until.Kind != readyAlready {
		ready.Go(func() { k.awaitReady(alive, until) })
	}
	err := p.AwaitEnd()
	close(k.ended)
	dead()
	ready.Wait()
	if errors.Is(err, process.ErrClosed) {
		return // the agent leaves, the child stays
	}
	if err != nil {
		k.agent.Logger.Error("a process can not be watched any more and counts as ended", "instance", k.name, "pid", p.Identity().PID, "error", err)
	}
	k.tell(func(l *loop, c *child) { l.onLeaderGone(c) })

	within, stop := context.WithTimeout(context.Background(), emptyWithin)
	left, err := p.Empty(within)
	stop()
	if err != nil {
		k.agent.Logger.Error("processes of an instance survived its end", "instance", k.name, "pids", left, "error", err)
	}
	exit := p.Reap()
	k.forget()
	k.tell(func(l *loop, c *child) { l.onEnded(c, exit) })
}

// notStarted is the end of a process that never came to be.
func (k *keeper) notStarted(err error) {
	close(k.ended)
	k.forget()
	k.tell(func(l *loop, c *child) { l.onNotStarted(c, err) })
}

// tell posts an event about this keeper's child. Once the loop has ended nobody
// hears of it; the record tells the next agent.
func (k *keeper) tell(event func(*loop, *child)) {
	k.agent.post(func(l *loop) {
		// The loop may have gone on to another child meanwhile.
		if i := l.instances[k.name]; i != nil && i.child != nil && i.child.keeper == k {
			event(l, i.child)
		}
	})
}

// save changes the record and writes it.
func (k *keeper) save(change func(*state.Record)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.record.Phase == state.Ended {
		return nil
	}
	change(&k.record)
	return k.agent.Store.Put(k.record)
}

// forget records that there is no process any more.
func (k *keeper) forget() {
	err := k.save(func(r *state.Record) { r.Phase = state.Ended })
	if err != nil {
		k.agent.Logger.Warn("the end of a process could not be recorded; the next agent will see that it is gone", "instance", k.name, "error", err)
	}
}

// stop asks the process to end, and makes it end when its time is over. The
// loop calls it once.
func (k *keeper) stop(how module.Stop) {
	p := k.process
	k.agent.tasks.Go(func() {
		if err := k.signal(p, how.Signal); err != nil && !errors.Is(err, process.ErrGone) {
			k.agent.Logger.Warn("a process could not be asked to end", "instance", k.name, "signal", how.Signal, "error", err)
		}
		patience := time.NewTimer(how.Timeout)
		defer patience.Stop()
		select {
		case <-k.ended:
			return
		case <-k.agent.done:
			return
		case <-patience.C:
		}
		k.agent.Logger.Warn("a process did not end in time and is killed with its tree", "instance", k.name, "pid", p.Identity().PID, "timeout", how.Timeout)
		if err := p.KillTree(); err != nil && !errors.Is(err, process.ErrGone) {
			k.agent.Logger.Error("a process could not be killed", "instance", k.name, "pid", p.Identity().PID, "error", err)
		}
	})
}

func (k *keeper) signal(p *process.Process, name string) error {
	sig, err := process.ParseSignal(name)
	if err != nil {
		return err
	}
	return p.Signal(sig)
}

// readiness says when a process counts as ready (design section 6).
type readiness struct {
	module.Ready
	host    string // where its ports are tried
	ports   table.Ports
	log     string // the file of its output
	logFrom int64  // where its output begins there
	timeout time.Duration
}

// readyAlready is the readiness of a process that is not to be waited for.
const readyAlready module.ReadyKind = ""

// awaitReady waits until the process is ready, its time for that is over, or
// alive ends.
func (k *keeper) awaitReady(alive context.Context, r readiness) {
	within, stop := context.WithTimeoutCause(alive, r.timeout, errNotReady)
	defer stop()
	err := k.ask(within, r)
	switch {
	case err == nil:
		if err := k.save(func(s *state.Record) { s.Ready = true }); err != nil {
			k.agent.Logger.Warn("that a process is ready could not be recorded", "instance", k.name, "error", err)
		}
		k.tell(func(l *loop, c *child) { l.onReady(c) })
	case errors.Is(err, errNotReady):
		k.tell(func(l *loop, c *child) { l.onNotReady(c, notReadyReason(r, err)) })
	}
}

// ask waits until the process is ready in its own way, or ctx ends.
func (k *keeper) ask(ctx context.Context, r readiness) error {
	switch r.Kind {
	case module.ReadyRegister:
		select {
		case <-k.registered:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("it did not call RegisterProcess: %w", context.Cause(ctx))
		}
	case module.ReadyHTTP:
		return probe.HTTP(ctx, r.host, portOf(r.ports, r.Protocol), r.Path)
	case module.ReadyLog:
		return probe.Log(ctx, r.log, r.logFrom, r.Pattern)
	case module.ReadyDelay:
		select {
		case <-time.After(r.Delay):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	default:
		if r.Protocol != 0 {
			return probe.Port(ctx, r.host, []int{portOf(r.ports, r.Protocol)})
		}
		return probe.Port(ctx, r.host, numbers(r.ports))
	}
}

var errNotReady = errors.New("its start timeout is over")

func notReadyReason(r readiness, err error) string {
	return fmt.Sprintf("not ready within %s: %s", r.timeout, strings.TrimSuffix(err.Error(), ": "+errNotReady.Error()))
}

// portOf is the port of one protocol.
func portOf(p table.Ports, protocol port.Protocol) int {
	return map[port.Protocol]int{port.TCP: p.TCP, port.HTTP: p.HTTP, port.WS: p.WS}[protocol]
}

// numbers are the ports that are there, in the order in which a LAN manager
// tries them.
func numbers(p table.Ports) []int {
	var all []int
	for _, n := range []int{p.TCP, p.HTTP, p.WS} {
		if n != 0 {
			all = append(all, n)
		}
	}
	return all
}
