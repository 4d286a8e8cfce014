package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/agent/journal"
	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/lan/table"
)

var eventNames = map[EventKind]string{
	LinkUp: "link up", LinkDown: "link down", NeedOpened: "opened", NeedClosed: "closed", NeedDecided: "decided",
	ServiceSet: "set", ServiceGone: "gone", ProcessStarted: "started", ProcessNotStarted: "not started",
	ProcessAdopted: "adopted", ProcessRegistered: "registered", ProcessReady: "ready", ProcessWithdrawn: "withdrawn",
	ProcessStopping: "stopping", ProcessEnded: "ended", ReportedDown: "reported", InstanceHold: "held", InstanceLetGo: "let go",
	Drained: "drained", Resumed: "resumed", Reloaded: "reloaded",
}

// told is what a reader tells now, each in short.
func told[T any](t *testing.T, r *journal.Reader[T], short func(journal.Entry[T]) string) (all []string) {
	t.Helper()
	for {
		now, stop := context.WithCancel(t.Context())
		stop()
		batch, err := r.Next(now)
		if errors.Is(err, context.Canceled) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range batch {
			all = append(all, short(e))
		}
	}
}

func eventInShort(e journal.Entry[Event]) string {
	text := eventNames[e.Value.Kind]
	if e.Value.Instance != "" {
		text += " " + e.Value.Instance
	}
	if e.Value.Kind == NeedDecided {
		text += fmt.Sprint(" ", e.Value.Decision)
	}
	if e.Value.Exit != nil {
		text += fmt.Sprintf(" (%s)", e.Value.Exit)
	}
	return text
}

func reader[T any](t *testing.T, r *journal.Reader[T], err error) *journal.Reader[T] {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// watched is a loop with all that it takes to show a process.
func watched(t *testing.T) *loop {
	t.Helper()
	l := loopWithLink(t)
	store, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	l.Store = store
	return l
}

// turn is one turn of the loop.
func turn(l *loop, events ...func()) {
	for _, event := range events {
		event()
		l.publish()
	}
}

// The life of an instance, told once each: one event for its end, and a decision
// when it became another one.
func TestLifeInTheJournal(t *testing.T) {
	l := watched(t)
	r, err := l.WatchEvents(journal.Start{})
	events := reader(t, r, err)
	x := withChild(l.get("X"), process.Starting)
	x.lastModule = "probe"
	c := x.child
	c.offered = true
	taken := table.Service{InstanceName: "X", ModuleName: "probe", IPAddress: "10.0.0.1", Ports: c.ports}
	turn(l,
		func() { l.onNeed(openNeed("X")) },
		func() { l.onNeed(openNeed("X")) }, // as it was
		func() { l.onReady(c) },
		func() { l.onNeedGone("X") },
		func() { l.onNeedGone("X") }, // said twice by some LAN managers
		func() { l.onService(&taken) },
		func() { l.stop(x, "enough", true) },
		func() { l.stop(x, "enough", true) },
		func() { l.onLeaderGone(c, process.Exit{Signal: "SIGTERM"}, nil) },
		func() { l.onEnded(c, process.Exit{Signal: "SIGTERM"}) },
		func() { l.onEnded(c, process.Exit{Signal: "SIGTERM"}) },
		func() { l.onServiceGone("X") },
		func() { l.onServiceGone("X") })
	want := strings.Split("opened X, decided X 2, ready X, decided X 1, closed X, set X, decided X 3, "+
		"stopping X, reported X, decided X 1, ended X (signal SIGTERM), gone X", ", ")
	got := told(t, events, eventInShort)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A session of ten thousand needs is one event, and its end another: nobody who
// watches is overtaken by them. The tables have all.
func TestSessionIsOneEvent(t *testing.T) {
	l := watched(t)
	l.up, l.shutdown = false, true // no bids
	r, err := l.WatchEvents(journal.Start{})
	events := reader(t, r, err)
	n, err := l.WatchNeeds(journal.Start{})
	needs := reader(t, n, err)
	up := link.Up{SeenAs: "10.0.0.1"}
	const many = 10000
	for n := range many {
		up.Needs = append(up.Needs, *openNeed(fmt.Sprint("N", n)))
	}
	turn(l, func() { l.onUp(up) }, func() { l.onDown(link.Down{Err: errors.New("gone")}) })
	if diff := cmp.Diff([]string{"link up", "link down"}, told(t, events, eventInShort)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if all := told(t, needs, func(e journal.Entry[NeedDecision]) string { return e.Key }); len(all) != many {
		t.Errorf("%d needs were told, want %d", len(all), many)
	}
}

// What is shown of an instance goes when the instance does.
func TestForgottenInstanceIsGone(t *testing.T) {
	l := watched(t)
	l.shutdown = true // no bids
	r, err := l.WatchNeeds(journal.Start{})
	needs := reader(t, r, err)
	short := func(e journal.Entry[NeedDecision]) string { return fmt.Sprint(e.Key, " ", e.Gone) }
	turn(l, func() { l.onNeed(openNeed("X")) }, func() { l.onNeedGone("X") })
	if got := told(t, needs, short); len(got) != 1 || got[0] != "X true" {
		t.Errorf("told %q", got)
	}
	if l.instances["X"] != nil {
		t.Error("the instance is still known")
	}
}

// Whoever waits for a place is told when there is none any more.
func TestNeedsThatWaitAreDecidedOnAgain(t *testing.T) {
	l := watched(t)
	l.MaxProcesses = 1
	l.inFlight = startsAtOnce() // so that the need has to wait
	r, err := l.WatchNeeds(journal.Start{})
	needs := reader(t, r, err)
	decision := func(e journal.Entry[NeedDecision]) string { return fmt.Sprint(e.Key, " ", e.Value.Decision) }
	turn(l, func() { l.onNeed(openNeed("X")) })
	before := told(t, needs, decision)
	turn(l, func() { l.count(withChild(l.get("Full"), process.Ready)) })
	after := told(t, needs, decision)
	if diff := cmp.Diff([][]string{{fmt.Sprint("X ", DecisionBid)}, {fmt.Sprint("X ", DecisionCapacity)}}, [][]string{before, after}); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// An end that a keeper sees when the loop has ended is an event all the same.
func TestEndAfterTheLoop(t *testing.T) {
	l := watched(t)
	r, err := l.WatchEvents(journal.Start{})
	events := reader(t, r, err)
	x := withChild(l.get("X"), process.Ready)
	x.lastEnd = time.Now()
	x.child.keeper.agent = l.Agent
	x.child.tell(func(l *loop, c *child) { l.onLeaderGone(c, process.Exit{}, nil) })
	close(l.Agent.done)
	x.child.tell(func(l *loop, c *child) { l.onEnded(c, process.Exit{Code: 3}) })
	l.hearLate()
	if diff := cmp.Diff([]string{"ended X (exit code 3)"}, told(t, events, eventInShort)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Thousands of events are kept, of which the LAN must not make something large.
func TestEventsAreClipped(t *testing.T) {
	l := loopWithLink(t)
	l.news = newNews()
	r, err := l.news.events.Open(journal.Start{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	long := strings.Repeat("ü", mostText)
	l.happened(Event{Kind: NeedOpened, Instance: "X", Module: long, Detail: long, ServedAt: long})
	got, err := r.Next(t.Context())
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	for _, text := range []string{got[0].Value.Module, got[0].Value.Detail, got[0].Value.ServedAt} {
		if len(text) > mostText+len("...") || !utf8.ValidString(text) || !strings.HasPrefix(text, "üü") {
			t.Errorf("%d bytes are kept of %d", len(text), len(long))
		}
	}
}
