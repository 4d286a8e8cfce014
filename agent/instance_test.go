package agent

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

func TestDoubled(t *testing.T) {
	for _, test := range []struct {
		d    time.Duration
		n    int
		most time.Duration
		want time.Duration
	}{
		{100 * time.Millisecond, 0, time.Minute, 100 * time.Millisecond},
		{100 * time.Millisecond, 1, time.Minute, 200 * time.Millisecond},
		{100 * time.Millisecond, 9, time.Minute, 51200 * time.Millisecond},
		{100 * time.Millisecond, 10, time.Minute, time.Minute},
		{100 * time.Millisecond, 1 << 30, time.Minute, time.Minute}, // no overflow
		{time.Hour, 0, time.Minute, time.Minute},
		{0, 5, time.Minute, 0},
	} {
		if got := doubled(test.d, test.n, test.most); got != test.want {
			t.Errorf("%s doubled %d times, at most %s: %s, want %s", test.d, test.n, test.most, got, test.want)
		}
	}
}

func TestSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(-int64(time.Second), int64(time.Hour)).Draw(t, "d"))
		got := spread(d)
		if d <= 0 && got != 0 {
			t.Errorf("%s became %s", d, got)
		}
		if low, high := d-d/4-1, d+d/4+1; d > 0 && (got < low || got > high) {
			t.Errorf("%s became %s", d, got)
		}
	})
	seen := make(map[time.Duration]bool)
	for range 100 {
		seen[spread(time.Second)] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d different waits of 100", len(seen))
	}
}

// wantWait makes sure that a wait is the nominal one, spread by a quarter.
func wantWait(t *testing.T, what string, now, until time.Time, nominal time.Duration) {
	t.Helper()
	if got := until.Sub(now); got < nominal*3/4 || got > nominal*5/4 {
		t.Errorf("%s: a wait of %s, want %s", what, got, nominal)
	}
}

// TestBackoff: the first death of a process that had been healthy costs no
// wait; the k-th other one waits initial times 2^(k-1), up to max.
func TestBackoff(t *testing.T) {
	rules := module.Backoff{Initial: 100 * time.Millisecond, Max: time.Second, Reset: 10 * time.Second}
	now := time.Now()
	var b backoff
	for k, nominal := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		b.ended(now, 9*time.Second, rules)
		wantWait(t, fmt.Sprintf("death %d", k+1), now, b.until, nominal*time.Millisecond)
		if b.failures != k+1 {
			t.Errorf("%d failures, want %d", b.failures, k+1)
		}
	}
	if b.ended(now, 10*time.Second, rules); b != (backoff{}) {
		t.Errorf("after a healthy while: %+v, want none", b)
	}
	b.ended(now, 0, rules)
	wantWait(t, "death 1 again", now, b.until, 100*time.Millisecond)
	b.ended(now, time.Nanosecond, module.Backoff{}) // no module, no rules
	if b != (backoff{}) {
		t.Errorf("without rules: %+v, want none", b)
	}
	quick := module.Backoff{Max: time.Minute, Reset: time.Second}
	if b.ended(now, time.Nanosecond, quick); !b.until.Equal(now) || b.failures != 1 {
		t.Errorf("with initial 0: %+v, want no wait", b)
	}
	b.ended(now, 0, quick)
	wantWait(t, "never ready, with initial 0", now, b.until, 2*unreadyInitial)
	b.ended(now, 0, module.Backoff{Max: time.Minute})
	wantWait(t, "never ready, with reset 0", now, b.until, 4*unreadyInitial)
}

// TestPause: offers that lead to nothing are repeated after 250 ms, growing to
// 5 s.
func TestPause(t *testing.T) {
	now := time.Now()
	var p pause
	for k, nominal := range []time.Duration{250, 500, 1000, 2000, 4000, 5000, 5000} {
		p.add(now, fmt.Sprint("reason ", k))
		wantWait(t, fmt.Sprintf("offer %d", k+1), now, p.until, nominal*time.Millisecond)
		if p.reason != fmt.Sprint("reason ", k) {
			t.Errorf("reason %q", p.reason)
		}
	}
}

// TestWhatAnInstanceTakes: who counts in maxprocesses, who among the starts
// under way, who may stand on the LAN's table, and who is asked for by nobody.
func TestWhatAnInstanceTakes(t *testing.T) {
	outside := withChild(&instance{name: "Probe"}, process.Ready)
	outside.child.origin = Outside
	for name, test := range map[string]struct {
		*instance
		occupies, starting, serving, live, idle bool
	}{
		"nothing":       {instance: &instance{name: "Probe"}, idle: true},
		"need":          {instance: needed()},
		"record":        {instance: servedAt(&instance{name: "Probe"}, "10.0.0.1")},
		"held":          {instance: &instance{name: "Probe", held: true}},
		"bid":           {instance: &instance{name: "Probe", bid: &bid{Bid: &link.Bid{}}}, occupies: true, starting: true},
		"bid, pending":  {instance: &instance{name: "Probe", bid: &bid{Bid: &link.Bid{}, pending: true}}},
		"starting":      {instance: withChild(&instance{name: "Probe"}, process.Starting), occupies: true, starting: true, serving: true, live: true},
		"ready":         {instance: withChild(&instance{name: "Probe"}, process.Ready), occupies: true, serving: true, live: true},
		"withdrawn":     {instance: withChild(&instance{name: "Probe"}, process.Withdrawn), occupies: true, live: true},
		"stopping":      {instance: withChild(&instance{name: "Probe"}, process.Stopping), occupies: true, live: true},
		"emptying":      {instance: withChild(&instance{name: "Probe"}, process.Emptying), occupies: true},
		"outside ready": {instance: outside, serving: true, live: true},
	} {
		i := test.instance
		if i.occupies() != test.occupies || i.starting() != test.starting || i.serving() != test.serving || i.live() != test.live || i.idle() != test.idle {
			t.Errorf("%s: occupies %v, starting %v, serving %v, live %v, idle %v; want %v, %v, %v, %v, %v", name,
				i.occupies(), i.starting(), i.serving(), i.live(), i.idle(), test.occupies, test.starting, test.serving, test.live, test.idle)
		}
	}
}

// TestStale: only a record of a process that we have or had is ours to report,
// and only if it is not true any more.
func TestStale(t *testing.T) {
	l := loopAt(t)
	same, others := table.Ports{TCP: 15000}, table.Ports{TCP: 15001}
	moved := servedAt(withChild(&instance{ghost: &same}, process.Ready), "10.0.0.1")
	moved.child.ports = others
	for name, test := range map[string]struct {
		instance *instance
		want     bool
	}{
		"served":                        {servedAt(withChild(&instance{}, process.Ready), "10.0.0.1"), false},
		"stopping":                      {servedAt(withChild(&instance{}, process.Stopping), "10.0.0.1"), true},
		"leader gone":                   {servedAt(withChild(&instance{}, process.Emptying), "10.0.0.1"), true},
		"its ports moved":               {moved, true},
		"another address":               {servedAt(withChild(&instance{}, process.Stopping), "10.0.0.2"), false},
		"other ports":                   {servedAt(&instance{child: &child{ports: others}}, "10.0.0.1"), false},
		"of the process before":         {servedAt(&instance{ghost: &same}, "10.0.0.1"), true},
		"not of the process before":     {servedAt(&instance{ghost: &others}, "10.0.0.1"), false},
		"of another agent at this host": {servedAt(&instance{}, "10.0.0.1"), false},
	} {
		if got := l.stale(test.instance); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
