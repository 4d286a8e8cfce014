package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/internal/fault"
	"github.com/allexgo/machine-agent/lan/table"
)

// emptyWithin is how long the rest of a tree may take to die after SIGKILL. A
// process that the kernel holds for longer is reported and left.
const emptyWithin = 10 * time.Second

// emptyLeaving is how long an agent that leaves still waits for that, and
// emptyAdopting the next one, for all trees together: it ends them too, and has to be
// back in the LAN before the LAN manager takes this machine for gone.
const (
	emptyLeaving  = time.Second
	emptyAdopting = 2 * time.Second
)

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
	ended      chan struct{}    // closed by the keeper when the main process is gone
	letLogGo   func()           // of the keeper alone
	voice      *voice           // nil: the process says nothing; set before the process is there
	patience   atomic.Pointer[patience]
	refusal    atomic.Pointer[error] // the last answer while it is not ready; nil: none yet

	saving  sync.Mutex // held while the record is written, which takes as long as the disk
	written bool       // the last of it; what follows in the file is the next process's

	mu        sync.Mutex
	record    state.Record
	opened    *process.Process // as soon as there is one, be it that the loop has not heard of it
	left      bool             // the agent leaves
	cancelled bool             // it is not to be started any more
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
		letLogGo:   func() {},
	}
}

// startChild does everything between the decision to start and the end of the
// process: intent, start, readiness, death, the rest of the tree.
func (k *keeper) startChild(spec process.Spec, how asked) {
	k.agent.tasks.Go(func() {
		k.useLog(how)
		how.logFrom = size(how.log)
		if err := k.save(func(r *state.Record) { r.LogFrom = how.logFrom }); err != nil {
			k.notStarted(fmt.Errorf("its start could not be recorded: %w", err))
			return
		}
		if k.isCancelled() {
			k.forget()
			k.notStarted(errCancelled)
			return
		}
		k.listenFor(how)
		p, err := process.Start(spec)
		if err != nil {
			k.forget()
			k.notStarted(err)
			return
		}
		_ = fault.At(fault.Forked)
		began := time.Now()
		k.open(p)
		// First the loop, so that a quick child is known when it calls.
		k.tell(func(l *loop, c *child) { l.onStarted(c, p, began) })
		k.change(func(r *state.Record) {
			r.Phase, r.Identity, r.StartTime = state.Running, p.Identity(), began
		})
		// On a goroutine of its own: the stack of this one has grown by the
		// start, and would be kept as long as the process lives. And before the
		// record is written: its end is to be seen also while the disk is stuck.
		k.agent.tasks.Go(func() { k.watch(p, how) })
		if err := k.write(); err != nil {
			k.agent.Logger.Error("a running process could not be recorded; it is tried again, and if the agent is killed before it will not be known again",
				"instance", k.name, "pid", p.Identity().PID, "error", err)
		}
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
func (k *keeper) adoptChild(p *process.Process, how asked) {
	k.process = p
	k.listenFor(how)
	k.open(p)
	k.agent.tasks.Go(func() {
		k.useLog(how)
		k.watch(p, how)
	})
}

// useLog has the log of the process kept within its limit. An outside process
// has none.
func (k *keeper) useLog(how asked) {
	if how.log != "" {
		k.letLogGo = k.agent.logs.Use(how.log, how.limit)
	}
}

// open notes that there is a process, which is let go at once if the agent is
// leaving.
func (k *keeper) open(p *process.Process) {
	k.voice.bind(p)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.opened = p
	if k.left {
		p.Close()
	}
}

// errCancelled: a process is not wanted any more that has not been started.
var errCancelled = errors.New("it is not wanted any more")

// cancel has the process not be started, if it has not been yet.
func (k *keeper) cancel() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cancelled = true
}

func (k *keeper) isCancelled() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cancelled
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
func (k *keeper) watch(p *process.Process, how asked) {
	alive, dead := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	asking.Go(func() {
		if k.awaitReady(alive, p, how) {
			k.voice.guard()
			k.guard(alive, p, how, &asking)
		}
	})
	err := k.awaitEnd(p)
	close(k.ended)
	dead()
	if errors.Is(err, process.ErrClosed) {
		asking.Wait()
		return // the agent leaves, the child stays
	}
	if err != nil {
		k.agent.Logger.Error("a process can not be watched any more and counts as ended", "instance", k.name, "pid", p.Identity().PID, "error", err)
	}
	_ = fault.At(fault.LeaderGone)
	seen := p.Seen()
	var stolen *theft
	unusable := false
	if !k.wasReady() {
		stolen = how.robbed(p)
		unusable = stolen == nil && k.unusable(how)
	}
	k.tell(func(l *loop, c *child) {
		if unusable && c.reason == "" {
			c.reason = byItself + "; " + inUseHint
		}
		l.onLeaderGone(c, seen, stolen)
	})

	if seen.Signal == "SIGKILL" {
		if why := k.agent.kernel.OutOfMemory(p.Main().PID); why != "" {
			k.tell(func(_ *loop, c *child) { c.reason = why })
		}
	}
	asking.Wait() // a command that asks is part of the tree
	within, stop := context.WithTimeout(k.agent.staying, emptyWithin)
	left, err := p.Empty(within)
	stop()
	if err != nil && !errors.Is(err, process.ErrClosed) && k.agent.staying.Err() == nil {
		k.agent.Logger.Error("processes of an instance survived its end", "instance", k.name, "pids", left, "error", err)
	}
	_ = fault.At(fault.Emptied)
	sweep(p.Identity().PID)
	if main := p.Main().PID; !process.Exists(main) { // it may have been reaped by somebody else
		sweep(main)
	}
	if exit, ok := k.reap(p); ok {
		k.letLogGo()
		k.forget()
		k.tell(func(l *loop, c *child) { l.onEnded(c, exit) })
	}
}

// awaitEnd waits for the end of the process, and listens to it meanwhile. What it has
// said before comes before the end, and may be that another process of its tree is
// the main one, which lives on.
func (k *keeper) awaitEnd(p *process.Process) error {
	if k.voice == nil {
		return p.AwaitEnd()
	}
	defer k.voice.close()
	for {
		alive, dead := context.WithCancel(context.Background())
		var listening sync.WaitGroup
		listening.Go(func() { k.listen(alive, p) })
		err := p.AwaitEnd()
		dead()
		listening.Wait()
		if err != nil || !p.Lives() {
			k.end(k.patience.Load()) // it may have stopped by itself
			return err
		}
	}
}

// reap reaps the process, unless the agent leaves: then the next one does, which
// also sees to what may be left of the tree.
func (k *keeper) reap(p *process.Process) (process.Exit, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left {
		return process.Exit{}, false
	}
	return p.Reap(), true
}

// notStarted is the end of a process that never came to be.
func (k *keeper) notStarted(err error) {
	close(k.ended)
	k.letLogGo()
	k.voice.close()
	k.tell(func(l *loop, c *child) { l.onNotStarted(c, err) })
}

// tell posts an event about this keeper's child.
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
	k.change(change)
	return k.write()
}

// change changes the record, unless there is no process any more.
func (k *keeper) change(change func(*state.Record)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.record.Phase != state.Ended {
		change(&k.record)
	}
}

// write writes the record as it is by now.
func (k *keeper) write() error {
	k.saving.Lock()
	defer k.saving.Unlock()
	if k.written {
		return nil
	}
	k.mu.Lock()
	r := k.record
	k.mu.Unlock()
	k.written = r.Phase == state.Ended
	return k.agent.Store.Put(r)
}

// wasReady tells whether the process has ever been ready.
func (k *keeper) wasReady() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.record.Ready
}

// forget records that there is no process any more.
func (k *keeper) forget() {
	err := k.save(func(r *state.Record) { r.Phase = state.Ended })
	if err != nil {
		k.agent.Logger.Warn("the end of a process could not be recorded; it is tried again, and the next agent would see that it is gone", "instance", k.name, "error", err)
	}
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
