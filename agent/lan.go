package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/metrics"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// onLink takes the events of the link. It runs on the link's goroutines and
// blocks them while the inbox is full: a LAN manager can not talk faster than
// the loop listens.
func (a *Agent) onLink(ctx context.Context, e link.Event) {
	select {
	case a.inbox <- func(l *loop) { l.onLAN(e) }:
	case <-ctx.Done():
	case <-a.done:
	}
}

func (l *loop) onLAN(e link.Event) {
	switch e := e.(type) {
	case link.Up:
		l.onUp(e)
	case link.Recognised:
		l.onRecognised(e)
	case link.Down:
		l.onDown(e)
	case link.NeedOpened:
		l.onNeed(&e.Need)
	case link.NeedTaken:
		l.onNeedGone(e.Instance)
	case link.NeedGone:
		l.onNeedGone(e.Instance)
	case link.ServiceSet:
		l.onService(&e.Service)
	case link.ServiceGone:
		l.onServiceGone(e.Instance)
	case link.Pending:
		l.onPending(e.Bid)
	case link.Challenged:
		l.onChallenged(e.Bid)
	case link.BidEnded:
		l.onBidEnded(e)
	}
}

// onUp reconciles: what the LAN says now is all that counts, and what runs
// here is held against it (design section 4.7).
func (l *loop) onUp(up link.Up) {
	up.Attend()
	l.up, l.read = true, true
	l.linked = LinkStatus{LANManager: up.LANManager, SeenAs: up.SeenAs, Since: time.Now()}
	l.Figures.Count(metrics.Session)
	l.engaged, l.problems = make(map[string]bool), make(map[string]bool)
	l.Logger.Info("session with the LAN manager", "at", up.LANManager, "seen as", up.SeenAs, "needs", len(up.Needs), "services", len(up.Services))

	l.silent = true
	l.happened(Event{Kind: LinkUp, Detail: fmt.Sprintf("with %s, seen as %s; open needs: %d, services: %d", up.LANManager, up.SeenAs, len(up.Needs), len(up.Services))})

	for _, i := range l.instances {
		l.cancelBid(i)
		i.need, i.service = nil, nil
		l.gone(i)
		i.rejected, i.reported, i.rebid = false, false, pause{}
	}
	// Agents that see the same burst of needs take them in different orders.
	rand.Shuffle(len(up.Needs), func(a, b int) { up.Needs[a], up.Needs[b] = up.Needs[b], up.Needs[a] })
	for n := range up.Needs {
		i := l.get(up.Needs[n].InstanceName)
		i.need = &up.Needs[n]
		l.seen(i)
	}
	for s := range up.Services {
		l.get(up.Services[s].InstanceName).service = &up.Services[s]
	}

	var keep []string
	for _, i := range l.instances {
		if i.place(l.address()) == PlaceServed {
			keep = append(keep, i.name)
		}
		if i.ghost != nil && i.service == nil {
			i.ghost = nil
		}
	}
	l.link.Keep(keep)
	for n := range up.Needs {
		l.settle(l.get(up.Needs[n].InstanceName))
	}
	for _, i := range l.instances {
		if i.need != nil && i.backoff.looping() { // this LAN manager may not know
			l.link.ReportFailing(i.name, i.lastReason+"; "+i.backoff.describe(), nil)
		}
		l.settle(i)
	}
}

// onRecognised takes note of whose program the LAN manager is.
func (l *loop) onRecognised(r link.Recognised) {
	if !l.up || r.LANManager != l.linked.LANManager {
		return // that session is over
	}
	l.linked.Kind = Original
	if r.Ours {
		l.linked.Kind = OfThisProject
	}
}

// mostProblems bounds what is logged of one outage: an error can name a port
// that is another one each time.
const mostProblems = 16

// onDown changes nothing but what is said of the link: children run on. Each
// problem is logged once until there is a session again.
func (l *loop) onDown(down link.Down) {
	if l.up {
		l.linked.Since = time.Now()
	}
	l.Figures.Count(metrics.SessionFailed)
	l.linked.Problem = down.Err.Error()
	if !l.problems[l.linked.Problem] && len(l.problems) < mostProblems {
		l.problems[l.linked.Problem] = true
		l.Logger.Warn("no session with a LAN manager; trying again", "error", down.Err)
	}
	l.linked.LANManager, l.linked.Kind = down.LANManager, 0
	if !l.up {
		return
	}
	l.up, l.silent = false, true
	l.happened(Event{Kind: LinkDown, Detail: l.linked.Problem})
	for _, i := range l.instances {
		l.cancelBid(i)
		l.settle(i)
	}
}

func (l *loop) onNeed(n *table.Need) {
	i := l.get(n.InstanceName)
	if i.need == nil {
		l.happened(Event{Kind: NeedOpened, Instance: i.name, Module: n.ModuleName})
	}
	i.need, i.rejected, i.rebid = n, false, pause{}
	l.seen(i)
	l.settle(i)
}

// onNeedGone takes back a bid that is not ours to win any more. One that has
// been answered is about to be accepted: this is how the LAN manager does it.
func (l *loop) onNeedGone(name string) {
	i := l.instances[name]
	if i == nil {
		return
	}
	if i.need != nil {
		l.happened(Event{Kind: NeedClosed, Instance: name, Module: i.need.ModuleName})
	}
	i.need = nil
	if i.bid == nil || !i.bid.responded {
		l.cancelBid(i)
		l.gone(i)
	}
	l.settle(i)
}

func (l *loop) onService(s *table.Service) {
	i := l.get(s.InstanceName)
	if was := i.service; was == nil || was.IPAddress != s.IPAddress || was.Ports != s.Ports {
		i.reported = false
	}
	i.service = s
	l.happened(Event{Kind: ServiceSet, Instance: i.name, Module: s.ModuleName, ServedAt: s.IPAddress, Detail: "ports " + fmt.Sprint(numbers(s.Ports))})
	l.settle(i)
}

func (l *loop) onServiceGone(name string) {
	i := l.instances[name]
	if i == nil {
		return
	}
	if i.service != nil {
		l.happened(Event{Kind: ServiceGone, Instance: name, Module: i.service.ModuleName})
	}
	i.service, i.ghost, i.reported = nil, nil, false
	if i.child != nil {
		i.child.offered = false
	}
	l.settle(i)
}

// bidder finds the instance of a bid that still counts; nil otherwise.
func (l *loop) bidder(b *link.Bid) *instance {
	if i := l.instances[b.Instance]; i != nil && i.bid != nil && i.bid.Bid == b {
		return i
	}
	return nil
}

func (l *loop) onPending(b *link.Bid) {
	if i := l.bidder(b); i != nil && !i.bid.challenged {
		i.bid.pending = true
		l.settle(i)
	}
}

func (l *loop) onChallenged(b *link.Bid) {
	i := l.bidder(b)
	if i == nil {
		b.Cancel()
		return
	}
	i.bid.challenged = true
	l.Figures.Count(metrics.Challenge)
	l.reached(i, metrics.StageChallenge)
	l.settle(i)
}

// onBidEnded draws the conclusion from a bid (design section 4.4).
func (l *loop) onBidEnded(e link.BidEnded) {
	i := l.bidder(e.Bid)
	if i == nil {
		return
	}
	answered := i.bid.need
	i.bid = nil
	l.Figures.Count(outcomes[e.Outcome])
	switch e.Outcome {
	case link.Accepted:
		l.arrived(i, answered)
		if i.need == answered { // its end is on its way, if it has not opened again already
			l.happened(Event{Kind: NeedClosed, Instance: i.name, Module: i.need.ModuleName})
			i.need = nil
		}
		i.rebid = pause{}
		l.Logger.Info("serving", "instance", i.name, "pid", i.child.pid(), "ports", fmt.Sprint(numbers(i.child.ports)))
	case link.Rejected:
		i.rejected = i.need != nil && i.need.IPAddress != ""
		i.rebid.add(time.Now(), e.Err.Error())
	case link.Unreachable:
		l.unreachable(i, e.Err)
	case link.Withheld:
		var t *theft
		if errors.As(e.Err, &t) && i.child != nil {
			l.stolen(i, t)
		}
	case link.Lost:
		l.count(i)
		return // the end of the session is on its way, and settles everything
	default:
		i.rebid.add(time.Now(), fmt.Sprintf("%s: %v", e.Outcome, e.Err))
	}
	if i.need == nil && e.Outcome != link.Accepted {
		l.gone(i)
	}
	l.settle(i)
}

// unreachable ends a process whose ports the LAN manager can not connect to, as
// one that never became ready. One that is not ours to start again stays, and
// has to register anew.
func (l *loop) unreachable(i *instance, said error) {
	c := i.child
	if c == nil {
		return
	}
	reason := fmt.Sprintf("%v; it must listen on %s, ports %v, for the LAN manager to connect", said, l.address(), numbers(c.ports))
	if c.origin == Outside {
		l.Logger.Warn("an outside process is withdrawn", "instance", i.name, "pid", c.pid(), "reason", reason)
		c.reason = reason
		if l.move(c, process.EvWithdraw) == nil { // else it is about to end
			l.happenedTo(i, ProcessWithdrawn, reason)
		}
		return
	}
	c.ready = time.Time{}
	l.stop(i, reason, false)
}
