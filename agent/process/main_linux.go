package process

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file is about a process whose leader is not the one that counts: a daemon
// that goes on in a process of its own, while the one that was started ends.

// Follow makes pid, a live process of the tree, the main one: from now on its end is
// the end of the process, and signals go to it. What else is in the tree then, be it
// the leader, Empty ends. It may be called again, also with the pid of the leader,
// until Empty is. It needs a cgroup: without the leader nothing else says for certain
// who is of the tree. The error is ErrGone if pid does not live, or the process has
// been reaped.
func (p *Process) Follow(pid int) error {
	if p.kind == outside || p.id.Cgroup == "" {
		return errors.New("the process has no cgroup of its own, by which it is certain who belongs to it")
	}
	var m *Process
	err := p.control(func(int) (err error) { // meanwhile nobody else is in the cgroup
		m, err = p.member(pid)
		return err
	})
	if err != nil {
		return err
	}
	p.following.Lock()
	defer p.following.Unlock()
	if p.main != nil {
		p.main.letGo()
	}
	if p.main = m; m == p {
		p.main = nil
	}
	p.woken = true
	if err := p.pidfd.SetReadDeadline(time.Unix(1, 0)); err != nil { // AwaitEnd looks again
		m.pidfd.Close()
		return p.closed()
	}
	return nil
}

// member opens a live process of the tree; the leader is p.
func (p *Process) member(pid int) (*Process, error) {
	m, err := p, error(nil)
	if pid != p.id.PID {
		if m, err = open(pid, adopted); err != nil {
			return nil, err
		}
	}
	dir, err := cgroupOf(pid)
	switch {
	case m.dead(): // else the pid was its own all the time
		err = fmt.Errorf("process %d has ended: %w", pid, ErrGone)
	case err == nil && dir != p.id.Cgroup && !strings.HasPrefix(dir, p.id.Cgroup+"/"):
		err = fmt.Errorf("process %d is none of the instance: it is in the cgroup %s", pid, dir)
	}
	switch {
	case m == p:
		return m, err
	case err != nil:
		m.pidfd.Close()
		return nil, err
	case m.kind == child:
		claim(pid)
	}
	m.id.Cgroup = p.id.Cgroup
	return m, nil
}

// letGo lets a main process go that is it no more.
func (p *Process) letGo() {
	if p.kind == child {
		disclaim(p.id.PID)
	}
	p.pidfd.Close()
}

// AdoptMain is Adopt for a process that had another main one than its leader. The
// leader may have ended, and been reaped, long ago. The error is ErrGone if there is
// no such main process any more.
func AdoptMain(leader, main Identity) (*Process, error) {
	m, err := Adopt(main)
	if err != nil && !errors.Is(err, ErrGone) {
		return nil, err
	}
	p, err2 := Adopt(leader)
	switch {
	case err != nil && err2 == nil:
		p.abandon()
	case err == nil && err2 == nil:
		p.main = m
		return p, nil
	case err == nil && !errors.Is(err2, ErrGone):
		m.letGo()
		return nil, err2
	}
	return m, err
}

// abandon ends a leader whose main process is gone.
func (p *Process) abandon() {
	_ = p.Signal(unix.SIGKILL) // or it is dead
	if p.kind == child {
		p.Reap()
	}
	p.Close()
}

// Main is the identity of the main process: the leader, unless Follow has said
// otherwise.
func (p *Process) Main() Identity { return p.leading().id }

// Lives tells whether the main process lives.
func (p *Process) Lives() bool { return !p.leading().dead() }

// leading is the main process.
func (p *Process) leading() *Process {
	p.following.Lock()
	defer p.following.Unlock()
	if p.main == nil {
		return p
	}
	return p.main
}

// attend is leading, and has a wait for the leader last until Follow is called
// again.
func (p *Process) attend() *Process {
	p.following.Lock()
	defer p.following.Unlock()
	if p.main != nil {
		return p.main
	}
	if p.woken {
		p.woken = false
		_ = p.pidfd.SetReadDeadline(time.Time{}) // or it is closed, which await tells
	}
	return p
}
