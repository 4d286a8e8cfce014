package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/output"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/probe"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/internal/fault"
	"github.com/allexgo/machine-agent/lan/table"
)

// This file is what a keeper asks its process: whether it is ready.

// asked is how a process is asked (design section 6).
type asked struct {
	ready   module.Ready
	health  module.Health
	host    string // where its ports are tried
	ports   table.Ports
	own     map[int]uint64 // by port, the inodes of the sockets with which the agent holds them
	log     string         // the file of its output
	logFrom int64          // where its output begins there
	limit   output.Limit
	timeout time.Duration
	ill     bool // the agent before has withdrawn it, because it was not well

	notifies bool          // it says how it is on the notify socket
	watchdog time.Duration // how often at least; 0: need not

	serving serving // asks over gRPC
	command *template
}

// template is what the commands that ask how a process is are made from; nil if
// none do.
type template struct {
	spec   process.Spec // of the process
	values module.Values
}

// serving is an error unless grpc.health.v1 at an address says that a service is
// serving.
type serving = func(ctx context.Context, address, service string) error

// readyAlready is the readiness of a process that is not to be waited for.
const readyAlready module.ReadyKind = ""

// awaitReady waits until the process is ready, its time for that is over, or
// alive ends. It tells whether it is ready.
func (k *keeper) awaitReady(alive context.Context, p *process.Process, how asked) bool {
	if how.ready.Kind == readyAlready {
		return true
	}
	within, stop := context.WithCancelCause(alive)
	patience := k.begin(how.timeout, func() { stop(errNotReady) })
	var watch sync.WaitGroup
	watch.Go(func() { how.watchThieves(within, p, stop) })
	err := k.ask(within, p, how, stop)
	k.end(patience)
	stop(nil)
	watch.Wait()
	var stolen *theft
	switch {
	case err == nil:
		_ = fault.At(fault.Ready)
		if err := k.save(func(s *state.Record) { s.Ready = true }); err != nil {
			k.agent.Logger.Warn("that a process is ready could not be recorded", "instance", k.name, "error", err)
		}
		k.tell(func(l *loop, c *child) { l.onReady(c) })
	case errors.As(err, &stolen):
		k.tell(func(l *loop, c *child) { l.onStolen(c, stolen) })
	case errors.Is(err, errNotReady):
		reason := notReadyReason(how, err)
		if where := how.where(p); where != "" {
			reason += "; " + where
		}
		if k.unusable(how) {
			reason += "; " + inUseHint
		}
		k.tell(func(l *loop, c *child) { l.onNotReady(c, reason) })
	}
	return err == nil
}

var errNotReady = errors.New("its start timeout is over")

func notReadyReason(how asked, err error) string {
	return fmt.Sprintf("not ready within %s: %s", how.timeout, strings.TrimSuffix(err.Error(), ": "+errNotReady.Error()))
}

// ask waits until the process is ready in its own way, or ctx ends. That a port is
// stolen is told to rob, which ends ctx.
func (k *keeper) ask(ctx context.Context, p *process.Process, how asked, rob func(error)) error {
	robbed := func(whose probe.Owner) probe.Owner {
		return func(port int) error {
			err := whose(port)
			if stolen := (*theft)(nil); errors.As(err, &stolen) {
				rob(err)
			}
			return err
		}
	}
	var err error
	switch how.ready.Kind {
	case module.ReadyRegister:
		err = wait(ctx, k.registered, k.refused, "it did not call RegisterProcess")
	case module.ReadyNotify:
		err = wait(ctx, k.voice.ready(), k.refused, "it did not say READY=1 to $NOTIFY_SOCKET")
	case module.ReadyDelay:
		over := time.NewTimer(how.ready.Delay)
		defer over.Stop()
		err = wait(ctx, over.C, k.refused, "it has not lived long enough")
	case module.ReadyLog:
		err = probe.Log(how.log, how.logFrom, how.ready.Pattern).Until(ctx, k.refused)
	default:
		err = how.question(how.ready, robbed(how.owner(p))).Until(ctx, k.refused)
	}
	all := numbers(how.ports)
	if err != nil || how.ready.Kind == module.ReadyPort && len(all) == 1 { // which has been looked at
		return err
	}
	return probe.Hands(all, robbed(how.unstolen(p))).Until(ctx, k.refused)
}

// refused is told why the process is not ready yet.
func (k *keeper) refused(answer error) { k.refusal.Store(&answer) }

// awaits says in words what a process that is not ready is asked for, if it has been
// asked.
func (k *keeper) awaits() string {
	if answer := k.refusal.Load(); answer != nil {
		return (*answer).Error()
	}
	return ""
}

// wait waits for an event, or until ctx ends; no says what has not come then, and
// told is given it at once.
func wait[T any](ctx context.Context, event <-chan T, told func(error), no string) error {
	told(errors.New(no))
	select {
	case <-event:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", no, context.Cause(ctx))
	}
}

// question is what r asks of a port.
func (how asked) question(r module.Ready, whose probe.Owner) probe.Question {
	switch {
	case r.Kind == module.ReadyHTTP:
		return probe.HTTP(how.host, portOf(how.ports, r.Protocol), r.Path, whose)
	case r.Kind == module.ReadyGRPC:
		return probe.GRPC(how.host, portOf(how.ports, r.Protocol), r.Service, how.serving, whose)
	case r.Kind == module.HealthTCP:
		return probe.TCP(how.host, portOf(how.ports, r.Protocol), r.Send, r.Pattern, whose)
	case r.Kind == module.HealthWS:
		return probe.WebSocket(how.host, portOf(how.ports, r.Protocol), r.Path, whose)
	case r.Protocol != 0:
		return probe.Port(how.host, []int{portOf(how.ports, r.Protocol)}, whose)
	default:
		return probe.Port(how.host, numbers(how.ports), whose)
	}
}

// portOf is the port of one protocol.
func portOf(p table.Ports, protocol port.Protocol) int {
	return map[port.Protocol]int{port.TCP: p.TCP, port.HTTP: p.HTTP, port.WS: p.WS}[protocol]
}
