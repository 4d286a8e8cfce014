package agent

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/metrics"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/lan/table"
)

// loopThatKeeps is a loop that keeps what it has to keep.
func loopThatKeeps(t *testing.T, s *state.Store) *loop {
	l := loopWithLink(t)
	l.Store, l.Figures = s, metrics.New()
	return l
}

// settled lets all events happen that are due.
func settled(l *loop) {
	for {
		synctest.Wait()
		select {
		case event := <-l.inbox:
			event(l)
		default:
			return
		}
	}
}

// ends lets a process of the instance start, and end by itself.
func ends(l *loop, name string) *instance {
	i := withChild(l.get(name), process.Starting)
	i.child.module, _ = l.Catalogue.Find("probe")
	i.lastModule = "probe"
	c := i.child
	l.onLeaderGone(c, process.Exit{Code: 3}, nil)
	l.onEnded(c, process.Exit{Code: 3})
	settled(l)
	return i
}

// TestCrashLoop: the verdict falls with the fifth failure in a row, is known to
// the next agent, and a healthy while ends it.
func TestCrashLoop(t *testing.T) {
	store, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	synctest.Test(t, func(t *testing.T) {
		l := loopThatKeeps(t, store)
		began := time.Now()
		for n := 1; n <= loopFrom+1; n++ {
			i := ends(l, "X")
			if got := l.snapshot(i); got.CrashLoop != (n >= loopFrom) || got.Failures != n || !got.FailingSince.Equal(began) {
				t.Errorf("after %d failures: %+v", n, got)
			}
			time.Sleep(time.Second)
		}
		for name, want := range map[string]float64{"machineagent_crash_loops_total": 1, "machineagent_instances_in_crash_loop": 1, "machineagent_backoffs_total": 6} {
			if got := figure(t, l, name); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		if v := l.decide(l.get("X")); v.Decision != DecisionBackoff || !strings.Contains(v.detail, "crash loop: ended too soon 6 times in a row since ") {
			t.Errorf("decision %+v", v)
		}

		next := loopThatKeeps(t, store)
		if err := next.adopt(); err != nil {
			t.Fatal(err)
		}
		i := next.get("X")
		got := next.snapshot(i)
		if !got.CrashLoop || got.Failures != 6 || !got.FailingSince.Equal(began) || got.Module != "probe" || got.LastExit.Code != 3 ||
			!strings.Contains(got.LastReason, "it ended by itself") || !got.BackoffUntil.After(time.Now()) {
			t.Errorf("after a restart: %+v", got)
		}

		withChild(i, process.Starting).child.module, _ = next.Catalogue.Find("probe")
		next.onReady(i.child)
		settled(next)
		time.Sleep(i.child.module.Backoff.Reset)
		settled(next)
		if got := next.snapshot(i); got.CrashLoop || got.Failures != 0 || !got.FailingSince.IsZero() {
			t.Errorf("after a healthy while: %+v", got)
		}
		if k, err := store.Kept(); err != nil || len(k.Loops) != 0 {
			t.Errorf("after a healthy while there is still on disk: %+v, %v", k, err)
		}
	})
}

// TestCrashLoopOfNobody: a verdict goes with the memory of its instance.
func TestCrashLoopOfNobody(t *testing.T) {
	store, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	synctest.Test(t, func(t *testing.T) {
		l := loopThatKeeps(t, store)
		for range loopFrom {
			ends(l, "X")
		}
		if k, err := store.Kept(); err != nil || len(k.Loops) != 1 {
			t.Errorf("on disk: %+v, %v", k, err)
		}
		time.Sleep(remembered)
		settled(l)
		if k, err := store.Kept(); err != nil || len(k.Loops) != 0 || l.instances["X"] != nil {
			t.Errorf("a while later: %+v, %v, %v", k, err, l.instances["X"])
		}
	})
}

// TestCrashLoopWithoutNeed: a verdict goes with the need, as soon as it is certain
// that nobody has it and none opens. Without a session nothing is.
func TestCrashLoopWithoutNeed(t *testing.T) {
	for _, test := range []struct {
		name  string
		after func(*loop, *instance)
		stays bool
	}{
		{"removed", func(l *loop, i *instance) { l.onNeedGone(i.name) }, false},
		{"served elsewhere", func(l *loop, i *instance) {
			l.onNeedGone(i.name)
			l.onService(&table.Service{InstanceName: i.name, IPAddress: "10.0.0.9"})
		}, true},
		{"opens again", func(l *loop, i *instance) {
			l.onNeedGone(i.name)
			i.held = true // or it would be bid for
			l.onNeed(openNeed(i.name))
		}, true},
		{"without a session", func(l *loop, i *instance) {
			l.up = false
			l.onNeedGone(i.name)
		}, true},
	} {
		store, err := state.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		synctest.Test(t, func(t *testing.T) {
			l := loopThatKeeps(t, store)
			l.get("X").need = openNeed("X")
			for range loopFrom {
				ends(l, "X")
			}
			i := l.get("X")
			test.after(l, i)
			time.Sleep(reopenWithin - time.Second)
			settled(l)
			if !l.snapshot(i).CrashLoop {
				t.Errorf("%s: forgotten at once", test.name)
			}
			time.Sleep(time.Second)
			settled(l)
			if l.snapshot(i).CrashLoop != test.stays {
				t.Errorf("%s: %+v", test.name, l.snapshot(i))
			}
			time.Sleep(remembered)
			settled(l)
			if k, err := store.Kept(); err != nil || len(k.Loops) == 1 != test.stays || (l.instances["X"] != nil) != test.stays {
				t.Errorf("%s: a while later %+v, %v, %v", test.name, k, err, l.instances["X"])
			}
		})
	}
}

// TestCrashLoopUntilASession: what an agent took over from the one before it is
// judged by the first session that it has, not by its time without one.
func TestCrashLoopUntilASession(t *testing.T) {
	store, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	synctest.Test(t, func(t *testing.T) {
		l := loopThatKeeps(t, store)
		l.up = false
		l.adoptLoop(state.Loop{Instance: "X", Module: "probe", Failures: 9})
		time.Sleep(2 * remembered)
		settled(l)
		l.onUp(link.Up{LANManager: "10.0.0.1:23552"})
		settled(l)
		if i := l.instances["X"]; i == nil || !i.backoff.looping() {
			t.Fatalf("forgotten before it was known whether it is needed: %+v", i)
		}
		time.Sleep(reopenWithin)
		settled(l)
		if i := l.instances["X"]; i != nil && i.told() {
			t.Errorf("it is still shown: %+v", l.snapshot(i))
		}
	})
}

// TestCrashLoopAndTheClock: no verdict keeps an instance from starting for longer
// than its back-off can.
func TestCrashLoopAndTheClock(t *testing.T) {
	l := loopWithLink(t)
	m, _ := l.Catalogue.Find("probe")
	l.adoptLoop(state.Loop{Instance: "X", Module: "probe", Failures: 9, Until: time.Now().Add(1000 * time.Hour)})
	if wait := time.Until(l.get("X").backoff.until); wait > m.Backoff.Max {
		t.Errorf("it waits for %s", wait)
	}
}
