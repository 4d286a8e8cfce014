package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
)

// This file is how a keeper makes its process end (design section 6): nobody is
// sent to it any more, those who have it get their time to go, it is asked to
// end, and in the end it is made to.

// answerWithin is how long a stop waits for the LAN manager to have taken the
// process off its table.
const answerWithin = time.Second

// Children is how the agent talks to children over the sockets that they serve
// themselves. Its methods may be called from any goroutine.
type Children interface {
	// Stop asks the child that serves ChildService on a socket to end, and returns
	// when it has answered or does not serve any more. Nobody is asked but a process
	// of whose pid ours says that it is one. Before ctx ends an error says that there
	// is none to be asked, or that it refuses; fs.ErrNotExist, that nothing is served
	// there.
	Stop(ctx context.Context, socket string, ours func(pid int) bool, reason string, timeout time.Duration) error
	// Serving asks grpc.health.v1 at an address, host:port, for a service; empty is
	// the server as a whole. The error says what it is if it is not SERVING.
	Serving(ctx context.Context, address, service string) error
}

// farewell is how a process is made to end.
type farewell struct {
	module.Stop
	answered <-chan struct{} // closed when the LAN manager has let go of it; nil: nobody has to
	reason   string
}

// stop makes the process end. The loop calls it once.
func (k *keeper) stop(how farewell) {
	p := k.process
	k.agent.tasks.Go(func() {
		if !k.released(how.answered) || !k.goOn(nil, how.Grace) {
			return
		}
		over, stop := context.WithCancel(context.Background())
		defer stop()
		patience := k.begin(how.Timeout, stop)
		defer k.end(patience)
		if !k.agrees(over, p, how) {
			if err := k.signal(p, how.Signal); err != nil && !errors.Is(err, process.ErrGone) {
				k.agent.Logger.Warn("a process could not be asked to end", "instance", k.name, "signal", how.Signal, "error", err)
			}
		}
		if !k.goOn(over.Done(), math.MaxInt64) {
			return
		}
		k.agent.Logger.Warn("a process did not end in time and is killed with its tree", "instance", k.name, "pid", p.Main().PID, "timeout", how.Timeout)
		if err := p.KillTree(); err != nil && !errors.Is(err, process.ErrGone) {
			k.agent.Logger.Error("a process could not be killed", "instance", k.name, "pid", p.Main().PID, "error", err)
		}
	})
}

// released waits until the LAN manager has answered, and tells whether there is
// still something to stop.
func (k *keeper) released(answered <-chan struct{}) bool {
	if answered == nil {
		return true
	}
	if !k.goOn(answered, answerWithin) {
		return false
	}
	select {
	case <-answered:
	default:
		k.agent.Logger.Warn("the LAN manager has not answered that a service is gone, and its process is stopped all the same", "instance", k.name, "after", answerWithin)
	}
	return true
}

// goOn waits for an event, at most so long, and tells whether there is still
// something to stop: the process lives, and the agent has not left it to the
// next one. What has happened already is not waited for.
func (k *keeper) goOn(event <-chan struct{}, most time.Duration) bool {
	select {
	case <-event:
		return true
	default:
	}
	if most <= 0 {
		return true
	}
	over := time.NewTimer(most)
	defer over.Stop()
	select {
	case <-event:
		return true
	case <-over.C:
		return true
	case <-k.ended:
		return false
	case <-k.agent.done:
		return false
	}
}

// agrees asks the process to end over its own socket, if it serves one, and
// tells whether it gets no signal. Whoever else listens there is not asked. One that
// has been asked may be about to end before it answers, and gets none until over.
func (k *keeper) agrees(over context.Context, p *process.Process, how farewell) bool {
	if k.agent.Children == nil || how.Timeout <= 0 {
		return false
	}
	id, main := p.Identity(), p.Main().PID
	ours := func(pid int) bool {
		lineage, err := process.LineageOf(pid)
		return err == nil && lineage.Within(id)
	}
	within, stop := context.WithCancel(over)
	defer stop()
	k.agent.tasks.Go(func() {
		k.goOn(within.Done(), math.MaxInt64)
		stop()
	})
	err := k.agent.Children.Stop(within, childSocket(main), ours, how.reason, how.Timeout)
	if within.Err() != nil {
		return true
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.agent.Logger.Debug("a process does not end by ChildService.Stop and gets its signal", "instance", k.name, "pid", main, "error", err)
	}
	return err == nil
}

// childSocket is where a child serves ChildService, if it does.
func childSocket(pid int) string { return fmt.Sprintf("/tmp/allexprocess.%d", pid) }

// sweep removes the socket of a process that did not get to do it itself. The
// process is not reaped yet: nobody else has its pid.
func sweep(pid int) {
	if file, err := os.Lstat(childSocket(pid)); err == nil && file.Mode().Type() == fs.ModeSocket {
		_ = os.Remove(childSocket(pid)) // or it is not for us to remove
	}
}

func (k *keeper) signal(p *process.Process, name string) error {
	sig, err := process.ParseSignal(name)
	if err != nil {
		return err
	}
	return p.Signal(sig)
}
