package agent

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/metrics"
	"github.com/allexgo/machine-agent/agent/process"
)

// figure is the value of a metric of the loop.
func figure(t *testing.T, l *loop, name string) float64 {
	t.Helper()
	var text bytes.Buffer
	l.Figures.Write(&text, l.census())
	for line := range strings.Lines(text.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("there is no %s in:\n%s", name, text.String())
	return 0
}

func TestEndOf(t *testing.T) {
	for _, test := range []struct {
		state   process.State
		planned bool
		ready   bool
		exit    process.Exit
		want    metrics.Count
	}{
		{process.Ready, false, true, process.Exit{}, metrics.EndExited},
		{process.Starting, false, false, process.Exit{Code: 3}, metrics.EndFailed},
		{process.Withdrawn, false, true, process.Exit{Signal: "SIGSEGV"}, metrics.EndKilled},
		{process.Ready, false, true, process.Exit{Unknown: true}, metrics.EndUnknown},
		{process.Stopping, true, true, process.Exit{Signal: "SIGTERM"}, metrics.EndStopped},
		{process.Stopping, false, true, process.Exit{Signal: "SIGTERM"}, metrics.EndUnwell},
		{process.Stopping, false, false, process.Exit{Signal: "SIGTERM"}, metrics.EndNotReady},
	} {
		c := &child{state: test.state, planned: test.planned}
		if test.ready {
			c.ready = time.Now()
		}
		if got := endOf(c, test.exit); got != test.want {
			t.Errorf("%+v: class %d", test, got)
		}
	}
}

// TestRoad: a process that runs already is offered, replaced and offered again.
func TestRoad(t *testing.T) {
	l := loopWithLink(t)
	l.Figures = metrics.New()
	x := withChild(l.get("X"), process.Ready)
	x.child.module, _ = l.Catalogue.Find("probe")
	l.onNeed(openNeed("X"))
	l.onChallenged(x.bid.Bid)
	b := x.bid.Bid
	l.onNeedGone("X")
	l.onLAN(link.BidEnded{Bid: b, Outcome: link.Accepted})
	for name, want := range map[string]float64{
		"machineagent_needs_seen_total":                            1,
		"machineagent_bids_total":                                  1,
		"machineagent_challenges_total":                            1,
		`machineagent_bids_ended_total{outcome="accepted"}`:        1,
		`machineagent_stage_seconds_count{stage="bid"}`:            1,
		`machineagent_stage_seconds_count{stage="challenge"}`:      1,
		`machineagent_stage_seconds_count{stage="start"}`:          0,
		`machineagent_stage_seconds_count{stage="serve"}`:          1,
		"machineagent_need_seconds_count":                          1,
		"machineagent_replacement_seconds_count":                   0,
		`machineagent_processes{state="ready"}`:                    1,
		`machineagent_processes_by_place{place="unneeded"}`:        1,
		"machineagent_bids_out":                                    0,
		`machineagent_port_leases{state="listening"}`:              0,
		`machineagent_bids_ended_total{outcome="taken_back"}`:      0,
		`machineagent_process_ends_total{class="killed"}`:          0,
		"machineagent_backoffs_total":                              0,
		`machineagent_stage_seconds_bucket{stage="bid",le="+Inf"}`: 1,
	} {
		if got := figure(t, l, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}

	l.onLeaderGone(x.child, process.Exit{Signal: "SIGKILL"}, nil)
	if x.missed.IsZero() {
		t.Error("nobody misses what was served")
	}
	l.arrived(x, openNeed("X")) // its replacement; the need before has arrived
	for name, want := range map[string]float64{
		`machineagent_process_ends_total{class="killed"}`: 1,
		"machineagent_backoffs_total":                     1,
		"machineagent_replacement_seconds_count":          1,
		"machineagent_need_seconds_count":                 1,
	} {
		if got := figure(t, l, name); got != want {
			t.Errorf("after the end %s is %v, want %v", name, got, want)
		}
	}
}

// TestRoadOfAnother: what is served elsewhere has no road here, whatever comes
// next.
func TestRoadOfAnother(t *testing.T) {
	l := loopWithLink(t)
	l.Figures = metrics.New()
	l.MaxProcesses = 1
	l.count(withChild(l.get("Full"), process.Ready))
	l.onNeed(openNeed("X"))
	l.onNeedGone("X")
	l.bid(l.get("X")) // early, for a need that has not opened again
	if n := figure(t, l, `machineagent_stage_seconds_count{stage="bid"}`); n != 0 {
		t.Errorf("%v stages", n)
	}
	l.onNeed(openNeed("X"))
	if n := figure(t, l, `machineagent_stage_seconds_count{stage="bid"}`); n != 1 {
		t.Errorf("%v stages after the early bid has met its need", n)
	}
}
