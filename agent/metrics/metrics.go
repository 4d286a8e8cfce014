// Package metrics is what an agent counts on the road from a need to a service
// and at the end of a process, and the form in which it is told (docs/metrics.md).
//
// The loop counts, and whoever serves the figures writes them out; both may be
// done at the same time. No figure has an instance in its labels: their number
// does not grow with what the LAN or a child says. agent and server may import
// this package; how the figures travel is not its matter.
package metrics

import (
	"io"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Count is something that is counted.
type Count int

const (
	NeedSeen Count = iota
	Bid
	BidAccepted
	BidRejected
	BidUnreachable
	BidDestroyed
	BidTimedOut
	BidLost
	BidWithheld
	BidTakenBack
	Challenge
	Spawn
	NotSpawned
	ProcessReady
	PortStolen
	Adoption
	EndStopped
	EndNotReady
	EndUnwell
	EndExited
	EndFailed
	EndKilled
	EndUnknown
	Backoff
	CrashLoop
	DownReport
	Session
	SessionFailed
	counts
)

// Stage is a part of the road from a need to a service. Each begins where the
// one before ends.
type Stage int

const (
	StageBid       Stage = iota // ends when we bid
	StageChallenge              // ends when the LAN manager wants it served by us
	StageStart                  // ends when its process runs
	StageReady                  // ends when the process is ready
	StageServe                  // ends when the LAN manager has accepted it
	Stages
)

var stages = [Stages]string{"bid", "challenge", "start", "ready", "serve"}

func (s Stage) String() string { return stages[s] }

// buckets are the upper bounds of all histograms, in seconds.
var buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// Figures are the counters and histograms of one agent. A nil one counts nothing.
type Figures struct {
	set         *metrics.Set
	counters    [counts]*metrics.Counter
	stages      [Stages]*metrics.PrometheusHistogram
	need        *metrics.PrometheusHistogram
	replacement *metrics.PrometheusHistogram
}

// New makes Figures that are all zero.
func New() *Figures {
	metrics.ExposeMetadata(true) // their types; the library knows it for all sets at once
	f := &Figures{set: metrics.NewSet()}
	for c := range counts {
		f.counters[c] = f.set.NewCounter(named[c])
	}
	histogram := func(name string) *metrics.PrometheusHistogram {
		return f.set.NewPrometheusHistogramExt(name, buckets)
	}
	for s := range Stages {
		f.stages[s] = histogram(labelled(stageSeconds, "stage", s.String()))
	}
	f.need, f.replacement = histogram(needSeconds), histogram(replacementSeconds)
	return f
}

// Count counts one.
func (f *Figures) Count(c Count) {
	if f != nil {
		f.counters[c].Inc()
	}
}

// Took is the time that a stage took.
func (f *Figures) Took(s Stage, d time.Duration) {
	if f != nil {
		f.stages[s].Update(d.Seconds())
	}
}

// Served is the time from a need to its service.
func (f *Figures) Served(d time.Duration) {
	if f != nil {
		f.need.Update(d.Seconds())
	}
}

// Replaced is the time from the end of a process that was served to the
// acceptance of the one in its place.
func (f *Figures) Replaced(d time.Duration) {
	if f != nil {
		f.replacement.Update(d.Seconds())
	}
}

// Write writes all figures, the census among them, in the text format of
// Prometheus.
func (f *Figures) Write(w io.Writer, now Census) {
	f.set.WritePrometheus(w)
	gauges := metrics.NewSet()
	now.each(func(name string, value float64) { gauges.NewGauge(name, nil).Set(value) })
	gauges.WritePrometheus(w)
	metrics.WriteProcessMetrics(w)
	metrics.WriteFDMetrics(w)
}
