package agent

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
)

// passing gives an instance a running process with a passed socket, and tells the
// port.
func passing(t *testing.T, l *loop, i *instance) int {
	t.Helper()
	ports, err := l.ports.Lease(port.Request{Instance: i.name, Protocols: []port.Protocol{port.HTTP}, Mode: port.Passed})
	if err != nil {
		t.Fatal(err)
	}
	withChild(i, process.Ready)
	i.child.ports, i.child.ready = ports, time.Now()
	i.child.process, i.child.module, i.lastModule = &process.Process{}, nil, "probe"
	return ports.HTTP
}

func accepts(number int) bool {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", number))
	if err == nil {
		c.Close()
	}
	return err == nil
}

// TestDue has a row for everything that keeps a passed socket after the process
// has ended, or does not.
func TestDue(t *testing.T) {
	const here, there = "10.0.0.1", "10.0.0.2"
	for name, c := range map[string]struct {
		change func(*loop, *instance)
		want   bool
	}{
		"its need is open":              {func(*loop, *instance) {}, true},
		"it lives":                      {func(l *loop, i *instance) { i.need = nil; withChild(i, process.Ready) }, true},
		"it lives withdrawn":            {func(l *loop, i *instance) { i.need = nil; withChild(i, process.Withdrawn) }, true},
		"it lives and the link is lost": {func(l *loop, i *instance) { l.up = false; withChild(i, process.Ready) }, true},
		"it stops to be restarted":      {func(l *loop, i *instance) { withChild(i, process.Stopping) }, true},
		"it stops and is held":          {func(l *loop, i *instance) { i.held = true; withChild(i, process.Stopping) }, false},
		"held":                          {func(l *loop, i *instance) { i.held = true }, false},
		"shutdown":                      {func(l *loop, i *instance) { l.shutdown = true }, false},
		"link lost":                     {func(l *loop, i *instance) { l.up = false }, false},
		"back-off":                      {func(l *loop, i *instance) { i.backoff.until = time.Now().Add(time.Minute) }, false},
		"pause between bids":            {func(l *loop, i *instance) { i.rebid.until = time.Now().Add(time.Minute) }, false},
		"no room":                       {func(l *loop, i *instance) { l.MaxProcesses, l.occupied = 1, 1 }, false},
		"not catalogued any more":       {func(l *loop, i *instance) { i.need.ModuleName = "other" }, false},
		"for another machine":           {func(l *loop, i *instance) { i.need.IPAddress = there }, false},
		"nobody needs it":               {func(l *loop, i *instance) { i.need = nil }, false},
		"its need is about to open":     {func(l *loop, i *instance) { i.need = nil; i.reopens = time.Now().Add(time.Minute) }, true},
		"its need did not open":         {func(l *loop, i *instance) { i.need = nil; i.reopens = time.Now().Add(-time.Second) }, false},
		"its record is about to go": {func(l *loop, i *instance) {
			i.need, i.reported, i.reopens = nil, true, time.Now().Add(time.Minute)
			servedAt(i, here)
		}, true},
		"served elsewhere": {func(l *loop, i *instance) {
			i.need, i.reopens = nil, time.Now().Add(time.Minute)
			servedAt(i, there)
		}, false},
		"the bid is out":             {func(l *loop, i *instance) { i.bid = &bid{} }, true},
		"the bid is behind another":  {func(l *loop, i *instance) { i.bid = &bid{pending: true} }, false},
		"the bid may be slow to win": {func(l *loop, i *instance) { i.bid, i.reopens = &bid{pending: true}, time.Now().Add(time.Minute) }, true},
	} {
		l, i := loopAt(t), needed()
		c.change(l, i)
		if got := l.due(i); got != c.want {
			t.Errorf("%s: due is %v", name, got)
		}
	}
}

// TestKeepsSocket: the socket of a process that was healthy outlives it and goes to
// the next one; nobody who connects in between is refused.
func TestKeepsSocket(t *testing.T) {
	l := loopWithLink(t)
	x := l.get("X")
	number := passing(t, l, x)
	x.child.offered = true
	servedAt(x, "10.0.0.1").service.Ports = x.child.ports
	l.onLeaderGone(x.child, process.Exit{Signal: "SIGKILL"}, nil)
	l.onEnded(x.child, process.Exit{Signal: "SIGKILL"})
	l.onServiceGone("X")
	if all := l.ports.All(); len(all) != 1 || all[0].State != port.StateKept || !accepts(number) {
		t.Errorf("leases %+v, it accepts: %v", all, accepts(number))
	}
	l.onDown(link.Down{Err: errors.New("unplugged")})
	if all := l.ports.All(); len(all) != 0 || accepts(number) {
		t.Errorf("without a link: leases %+v, it accepts: %v", all, accepts(number))
	}
}

// TestHoldRefuses: a held instance leaves nobody waiting, and its lease lives as
// long as the process.
func TestHoldRefuses(t *testing.T) {
	l := loopWithLink(t)
	x := l.get("X")
	number := passing(t, l, x)
	x.held = true
	if err := l.move(x.child, process.EvStop); err != nil {
		t.Fatal(err)
	}
	l.settle(x)
	if all := l.ports.All(); len(all) != 1 || accepts(number) {
		t.Errorf("leases %+v, it accepts: %v", all, accepts(number))
	}
	l.onLeaderGone(x.child, process.Exit{}, nil)
	l.onEnded(x.child, process.Exit{})
	if _, has := l.ports.Of("X"); has {
		t.Error("it has leases after its end")
	}
}

// Where there is no room for another hold, those that there are can be said again.
func TestHoldsHaveTheirRoom(t *testing.T) {
	l := loopWithStore(t)
	name := func(n int) string { return fmt.Sprintf("%0255d", n) }
	held := 0
	for ; held < 1700 || state.RoomFor(append(l.holds(), name(held))); held++ { // the last of them one by one
		l.get(name(held)).held = true
	}
	go func() {
		for range 2 {
			(<-l.inbox)(l)
		}
	}()
	if _, err := l.Agent.Stop(t.Context(), name(0)); err != nil {
		t.Errorf("one that is held: %v", err)
	}
	_, err := l.Agent.Stop(t.Context(), name(held))
	if e, ok := errors.AsType[*Error](err); !ok || e.Kind != Exhausted {
		t.Errorf("one more: %v", err)
	}
}
