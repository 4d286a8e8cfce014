package main

import (
	"context"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/allexgo/machine-agent/agent/process"
)

// run serves until ctx ends, the agent was shut down, or it becomes another one. The
// API ends with the agent, never before it, except where another one goes on with
// it. Until it is ready, what fails has the program before come back.
func (m *machine) run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	managing, stopManaging := context.WithCancel(running)
	serving, stopServing := context.WithCancel(context.WithoutCancel(running)) // who watches hears of all until then
	defer stopManaging()
	leave := context.AfterFunc(ctx, func() {
		m.handed.Ready() // who is told to leave does not go back
		tell(daemon.SdNotifyStopping)
	})
	defer leave()
	keeping, stopKeeping := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { m.kept.run(keeping); return nil })
	served := make(chan struct{})
	alone := false // the agent has ended by itself
	group.Go(func() error {
		defer stopServing()
		defer stopKeeping()
		err := m.agent.Run(managing)
		if alone = managing.Err() == nil; alone && err == nil {
			tell(daemon.SdNotifyStopping)
		}
		return m.orBack(err)
	})
	group.Go(func() error {
		defer close(served)
		return m.orBack(m.server.Serve(serving, m.listener))
	})
	group.Go(func() error { m.shown.serve(serving); return nil })
	group.Go(func() error {
		st, err := m.agent.Pulse(serving)
		if err != nil {
			return nil // it has left again
		}
		m.handed.Ready()
		close(m.ready)
		group.Go(func() error { m.reapStrangers(serving); return nil }) // not before ours are known
		announce(serving, m.agent, st)
		return nil
	})
	group.Go(func() error {
		var to upgrade
		select {
		case to = <-m.upgrades:
		case <-serving.Done():
			return nil
		}
		m.upgrades <- to // for the end
		tell(daemon.SdNotifyReloading)
		stopServing()
		<-served
		if m.handPorts(managing, to.handover) {
			stopManaging()
		}
		return nil
	})
	err := group.Wait()
	var to upgrade
	select {
	case to = <-m.upgrades: // nobody may have heard of it, if the agent has ended meanwhile
	default:
		return err
	}
	// The next program would not know that we have been asked to leave.
	if err != nil || alone || m.deafen() {
		m.takeBack(to.handover)
		return err
	}
	return m.become(to)
}

// reapStrangers does so where we are the first process of a container.
func (m *machine) reapStrangers(ctx context.Context) {
	if err := process.ReapStrangers(ctx); err != nil {
		m.log.Warn("ended processes of others stay", "error", err)
	}
}

// orBack passes an error on if the program before does not come back because of it.
func (m *machine) orBack(err error) error {
	if err != nil {
		m.handed.Back(err)
	}
	return err
}
