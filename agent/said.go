package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/allexgo/machine-agent/agent/notify"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
)

// This file is what a process says of itself (sd_notify), on its way from the
// notify socket to the loop.

// voice is how a keeper hears its process. A nil voice hears nothing.
type voice struct {
	inbox   *notify.Inbox
	up      chan struct{} // closed when it has said READY=1
	guarded chan struct{} // closed when it is ready, in whatever way: the watchdog begins

	// What follows is that of listen.
	isUp       bool
	status     string          // the last one that was told
	watchdog   time.Duration   // 0: there is none
	complaints map[string]bool // which have been made
}

// listenFor makes a voice for a process that is about to be there, if it has one.
func (k *keeper) listenFor(how asked) {
	if how.notifies {
		k.voice = &voice{
			inbox: k.agent.Notify.Expect(), watchdog: how.watchdog, complaints: make(map[string]bool),
			up: make(chan struct{}), guarded: make(chan struct{}),
		}
	}
}

func (v *voice) bind(p *process.Process) {
	if v != nil {
		v.inbox.Bind(p)
	}
}

func (v *voice) close() {
	if v != nil {
		v.inbox.Close()
	}
}

func (v *voice) ready() <-chan struct{} {
	if v == nil {
		return nil
	}
	return v.up
}

// guard begins the watchdog. It is called once.
func (v *voice) guard() {
	if v != nil {
		close(v.guarded)
	}
}

// breath is how long a process is not listened to after it was, so that one that
// never stops talking keeps nobody from work. What it says meanwhile becomes one
// message.
const breath = 10 * time.Millisecond

// listen takes what the process says, until alive ends; what it said before its
// end is the last.
func (k *keeper) listen(alive context.Context, p *process.Process) {
	v := k.voice
	dog := time.NewTimer(time.Hour)
	dog.Stop()
	defer dog.Stop()
	guarded := v.guarded
	for {
		select {
		case <-alive.Done():
			k.agent.Notify.Catch()
			k.take(p)
			return
		case <-guarded:
			guarded = nil
			v.wind(dog)
		case <-dog.C:
			reason := fmt.Sprintf("its watchdog: it has not said WATCHDOG=1 within %s", v.watchdog)
			k.tell(func(l *loop, c *child) { l.stop(l.instances[c.name], reason, false) })
		case <-v.inbox.Said():
			if k.take(p) && guarded == nil {
				v.wind(dog)
			}
			select {
			case <-time.After(breath):
			case <-alive.Done():
			}
		}
	}
}

// wind has the watchdog wait anew.
func (v *voice) wind(dog *time.Timer) {
	if v.watchdog > 0 {
		dog.Reset(v.watchdog)
	}
}

// take takes what the process has said, and tells whether the watchdog has to
// wait anew. It returns when the loop has heard it.
func (k *keeper) take(p *process.Process) (wind bool) {
	v := k.voice
	m, said := v.inbox.Take()
	if !said {
		return false
	}
	defer m.Done()
	k.complain(m, p)
	followed := m.MainPID != 0 && k.follow(p, m.MainPID)
	if m.Ready && !v.isUp {
		v.isUp = true
		close(v.up)
	}
	if m.Stopping {
		k.awaitSelfStop()
	}
	if m.Extend > 0 {
		k.patience.Load().extend(m.Extend)
	}
	if m.Watchdog > 0 && v.watchdog > 0 {
		v.watchdog, wind = m.Watchdog, true
	}
	news := m.Status != nil && *m.Status != v.status
	if news {
		v.status = *m.Status
	}
	if news || followed || m.Ready || m.Reloading || m.Stopping || m.Trigger {
		heard := make(chan struct{})
		k.agent.post(func(l *loop) {
			defer close(heard)
			if i := l.instances[k.name]; i != nil && i.child != nil && i.child.keeper == k {
				l.onSaid(i.child, m)
			}
		})
		select {
		case <-heard:
		case <-k.agent.done:
		}
	}
	return wind || m.Alive
}

// complain tells once each what the process says in vain.
func (k *keeper) complain(m notify.Message, p *process.Process) {
	k.complaint(p, "FDSTORE", m.Store, "a process wants descriptors kept with FDSTORE=1, which the agent does not do; they are closed")
	k.complaint(p, "WATCHDOG", m.Watchdog != 0 && k.voice.watchdog == 0,
		"a process sets WATCHDOG_USEC=, which is not taken up: its module has no `watchdog`")
	k.complaint(p, "problems", len(m.Problems) > 0, "a process says on the notify socket what is not understood", "problems", m.Problems)
}

// complaint is told if it is one, and has not been told before.
func (k *keeper) complaint(p *process.Process, about string, is bool, text string, more ...any) {
	if is && !k.voice.complaints[about] {
		k.voice.complaints[about] = true
		k.agent.Logger.Warn(text, append([]any{"instance", k.name, "pid", p.Main().PID}, more...)...)
	}
}

// follow takes up that another process of the tree is the main one, and tells whether
// it is one now.
func (k *keeper) follow(p *process.Process, pid int) bool {
	was := p.Main().PID
	if pid == was {
		return false
	}
	err := p.Follow(pid)
	k.complaint(p, "MAINPID", err != nil && !errors.Is(err, process.ErrClosed), "a process says with MAINPID= that another one is the main one, which is not taken up; the one before is watched on", "mainpid", pid, "error", err)
	if err != nil {
		return false
	}
	k.agent.Logger.Info("another process is the main one of an instance", "instance", k.name, "pid", pid, "before", was)
	err = k.save(func(r *state.Record) {
		if r.Main = p.Main(); r.Main == r.Identity {
			r.Main = process.Identity{}
		}
	})
	if err != nil {
		k.agent.Logger.Error("the main process of an instance could not be recorded; if the agent is killed now it will not be known again", "instance", k.name, "pid", pid, "error", err)
	}
	return true
}

// awaitSelfStop gives a process that says that it stops as much time for that as
// if it had been told to.
func (k *keeper) awaitSelfStop() {
	timeout := k.record.Stop.Timeout // written before the keeper began, never changed
	k.begin(timeout, func() {
		k.tell(func(l *loop, c *child) {
			l.stop(l.instances[c.name], fmt.Sprintf("it said STOPPING=1 and did not end within %s", timeout), false)
		})
	})
}

// saidStopping is why a process is withdrawn that is about to end by itself.
const saidStopping = "it said STOPPING=1"

// onSaid is told what a process says of itself.
func (l *loop) onSaid(c *child, m notify.Message) {
	i := l.instances[c.name]
	if m.Status != nil {
		c.status = *m.Status
	}
	if m.Ready || m.Reloading {
		c.reloading = m.Reloading
	}
	l.touch(i)
	if m.Trigger {
		l.stop(i, "its watchdog: it said WATCHDOG=trigger", false)
	}
	if m.Stopping && c.state == process.Ready {
		c.stopping, c.planned = true, true
		l.cancelBid(i)
		l.withdraw(i, saidStopping)
		l.withdrawn(c, saidStopping)
	}
	l.settle(i)
}

// statusText is what is told of a process in its own words.
func (c *child) statusText() string {
	switch {
	case c.reloading && c.status != "":
		return "reloading: " + c.status
	case c.reloading:
		return "reloading"
	}
	return c.status
}

// patience is how long a process is waited for: while it starts, and while it
// stops. It can ask for more.
type patience struct {
	mu    sync.Mutex
	until time.Time
	over  *time.Timer
}

// begin begins to wait; over is called when it is over. The process asks for more
// of what began last.
func (k *keeper) begin(d time.Duration, over func()) *patience {
	p := &patience{until: time.Now().Add(d), over: time.AfterFunc(d, over)}
	k.patience.Store(p)
	return p
}

// extend makes the end at least d from now, unless it is over. A nil patience
// has no end.
func (p *patience) extend(d time.Duration) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := time.Now().Add(d); until.After(p.until) && p.over.Stop() {
		p.until = until
		p.over.Reset(d)
	}
}

// end ends a wait before it is over.
func (k *keeper) end(p *patience) {
	if p != nil {
		p.mu.Lock()
		p.over.Stop()
		p.mu.Unlock()
		k.patience.CompareAndSwap(p, nil)
	}
}
