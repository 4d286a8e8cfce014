package agent

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/allexgo/machine-agent/agent/metrics"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
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
