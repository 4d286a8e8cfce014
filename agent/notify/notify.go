// Package notify hears what processes say of themselves on the agent's notify
// socket, as sd_notify(3) says it: that they are ready, how they are, that they
// are alive.
//
// There is one Socket for all processes, and an Inbox for each that is listened
// to. What counts is who the kernel says sent a message: it goes to the Inbox of
// the process whose tree the sender is, or was, part of; the messages of
// strangers are counted and never believed. What a process says before anybody
// has taken what it said before becomes one message with that, so that a flood
// costs no memory. All methods may be called from any goroutine. Only package
// agent and cmd import it.
package notify

import (
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/agent/process"
)

// office knows whose inbox is whose.
type office struct {
	log hclog.Logger

	mu        sync.Mutex
	bound     map[*Inbox]struct{}
	byCgroup  map[uint64]*Inbox
	expected  int      // inboxes without a process yet
	unclaimed []letter // that came while there were such
	strangers map[int]int
}

// letter is a message with its sender.
type letter struct {
	message Message
	from    sender
}

// sender is who the kernel says sent a message.
type sender struct {
	pid, uid int
	cgroup   uint64          // 0: not known
	lineage  process.Lineage // unless the cgroup was enough, or it is gone
}

const (
	maxUnclaimed = 256
	maxStrangers = 1024 // of different users that are told apart
)

func newOffice(log hclog.Logger) *office {
	return &office{log: log, bound: make(map[*Inbox]struct{}), byCgroup: make(map[uint64]*Inbox), strangers: make(map[int]int)}
}

// Inbox is what one process has said and nobody has taken yet.
type Inbox struct {
	office   *office
	identity process.Identity
	cgroup   uint64

	wake    chan struct{}
	mu      sync.Mutex
	message Message
	said    bool
	closed  bool
}

// Expect makes an Inbox for a process that is about to be started, so that
// nothing is lost which it says before it is known. Close it.
func (o *office) Expect() *Inbox {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expected++
	return &Inbox{office: o, wake: make(chan struct{}, 1)}
}

// Bind says which process it is: the messages are those of its tree. It may be
// called once.
func (b *Inbox) Bind(p *process.Process) {
	o := b.office
	o.mu.Lock()
	defer o.mu.Unlock()
	b.identity, b.cgroup = p.Identity(), p.CgroupID()
	o.bound[b] = struct{}{}
	if b.cgroup != 0 {
		o.byCgroup[b.cgroup] = b
	}
	o.arrived()
}

// Close ends the listening. It may be called twice, and before Bind.
func (b *Inbox) Close() {
	o := b.office
	o.mu.Lock()
	defer o.mu.Unlock()
	if b.closed {
		return
	}
	b.closed = true
	if _, bound := o.bound[b]; !bound {
		o.arrived()
		return
	}
	delete(o.bound, b)
	if o.byCgroup[b.cgroup] == b {
		delete(o.byCgroup, b.cgroup)
	}
	m, _ := b.Take()
	m.Done()
}

// arrived is called when an inbox is not expected any more: the messages that
// nobody could claim may be those of its process.
func (o *office) arrived() {
	o.expected--
	o.unclaimed = slices.DeleteFunc(o.unclaimed, func(l letter) bool {
		if b := o.addressee(l.from); b != nil {
			b.put(l.message)
			return true
		}
		if o.expected == 0 {
			o.stranger(l)
		}
		return o.expected == 0
	})
}

// deliver puts a message into the inbox of its sender.
func (o *office) deliver(l letter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch b := o.addressee(l.from); {
	case b != nil:
		b.put(l.message)
	case o.expected > 0 && len(o.unclaimed) < maxUnclaimed:
		o.unclaimed = append(o.unclaimed, l)
	default:
		o.stranger(l)
	}
}

// known tells whether the cgroup is that of a process that is listened to, so
// that nothing more need be known of a sender there.
func (o *office) known(cgroup uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return cgroup != 0 && o.byCgroup[cgroup] != nil
}

func (o *office) addressee(from sender) *Inbox {
	if b := o.byCgroup[from.cgroup]; b != nil {
		return b
	}
	for b := range o.bound {
		if from.lineage.Within(b.identity) {
			return b
		}
	}
	return nil
}

// stranger counts a message that is not believed. It is told once of each user.
func (o *office) stranger(l letter) {
	l.message.Done()
	if _, known := o.strangers[l.from.uid]; !known && len(o.strangers) >= maxStrangers {
		return
	}
	o.strangers[l.from.uid]++
	if o.strangers[l.from.uid] == 1 {
		o.log.Warn("a message on the notify socket is not believed: it came from no process whose module says `notify` or `watchdog`; later ones of this user are only counted",
			"pid", l.from.pid, "uid", l.from.uid)
	}
}

// sum tells at the end what was not believed.
func (o *office) sum() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for uid, n := range o.strangers {
		o.log.Info("messages on the notify socket that were not believed", "uid", uid, "count", n)
	}
}

func (b *Inbox) put(m Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.message.add(m)
	b.said = true
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Said has an element when there may be something to take.
func (b *Inbox) Said() <-chan struct{} { return b.wake }

// Take takes what the process has said; false if it has said nothing.
func (b *Inbox) Take() (Message, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m, said := b.message, b.said
	b.message, b.said = Message{}, false
	return m, said
}
