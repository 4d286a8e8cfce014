package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
)

// TestReleased: a planned stop waits for the LAN manager's answer, but not for
// ever, and not for a process that has ended or that the agent leaves behind.
func TestReleased(t *testing.T) {
	const soon = 10 * time.Millisecond
	for name, test := range map[string]struct {
		answered bool // there is somebody to answer
		happens  func(k *keeper, answer func())
		on       bool
		after    time.Duration
	}{
		"nobody has to answer": {on: true},
		"answered":             {answered: true, happens: func(_ *keeper, answer func()) { answer() }, on: true, after: soon},
		"never answered":       {answered: true, on: true, after: answerWithin},
		"it ends by itself":    {answered: true, happens: func(k *keeper, _ func()) { close(k.ended) }, after: soon},
		"the agent leaves":     {answered: true, happens: func(k *keeper, _ func()) { close(k.agent.done) }, after: soon},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &keeper{agent: &Agent{done: make(chan struct{}), Config: Config{Logger: hclog.NewNullLogger()}}, ended: make(chan struct{})}
				answered := make(chan struct{})
				if test.happens != nil {
					time.AfterFunc(soon, func() { test.happens(k, func() { close(answered) }) })
				}
				if !test.answered {
					answered = nil
				}
				began := time.Now()
				if on := k.released(answered); on != test.on {
					t.Errorf("there is something to stop: %v, want %v", on, test.on)
				}
				if after := time.Since(began); after != test.after {
					t.Errorf("after %s, want %s", after, test.after)
				}
			})
		})
	}
}

// asking is how a child takes a Stop.
type asking func(ctx context.Context) error

func (a asking) Stop(ctx context.Context, _ string, _ func(int) bool, _ string, _ time.Duration) error {
	return a(ctx)
}

func (asking) Serving(context.Context, string, string) error { return nil }

// TestAgrees: who has been asked has the time of its stop to answer, and gets no
// signal meanwhile.
func TestAgrees(t *testing.T) {
	const soon, most = 10 * time.Millisecond, 10 * time.Second
	after := func(d time.Duration, answer error) asking {
		return func(ctx context.Context) error {
			select {
			case <-time.After(d):
				return answer
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	for name, test := range map[string]struct {
		asking  asking
		happens func(k *keeper)
		agrees  bool
		after   time.Duration
	}{
		"at once":          {asking: after(0, nil), agrees: true},
		"late":             {asking: after(5*time.Second, nil), agrees: true, after: 5 * time.Second},
		"never":            {asking: after(time.Hour, nil), agrees: true, after: most},
		"refuses":          {asking: after(soon, errors.New("no")), after: soon},
		"it ends":          {asking: after(time.Hour, nil), happens: func(k *keeper) { close(k.ended) }, agrees: true, after: soon},
		"the agent leaves": {asking: after(time.Hour, nil), happens: func(k *keeper) { close(k.agent.done) }, agrees: true, after: soon},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &keeper{agent: &Agent{done: make(chan struct{}), Config: Config{Logger: hclog.NewNullLogger(), Children: test.asking}}, ended: make(chan struct{})}
				if test.happens != nil {
					time.AfterFunc(soon, func() { test.happens(k) })
				}
				over, stop := context.WithTimeout(t.Context(), most)
				defer stop()
				began := time.Now()
				if agrees := k.agrees(over, &process.Process{}, farewell{Stop: module.Stop{Timeout: most}}); agrees != test.agrees {
					t.Errorf("it agrees: %v, want %v", agrees, test.agrees)
				}
				if after := time.Since(began); after != test.after {
					t.Errorf("after %s, want %s", after, test.after)
				}
			})
		})
	}
}

// TestGoOn: what has happened is not waited for.
func TestGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{agent: &Agent{done: make(chan struct{})}, ended: make(chan struct{})}
		happened := make(chan struct{})
		close(happened)
		close(k.ended)
		began := time.Now()
		if !k.goOn(happened, time.Hour) || !k.goOn(nil, 0) || k.goOn(nil, time.Hour) || time.Since(began) != 0 {
			t.Errorf("it took %s", time.Since(began))
		}
	})
}

// TestFarewell: what a stop waits for before the signal.
func TestFarewell(t *testing.T) {
	for name, test := range map[string]struct {
		state   process.State
		planned bool
		grace   time.Duration
		waits   bool
	}{
		"planned":              {process.Ready, true, 3 * time.Second, true},
		"planned, never ready": {process.Starting, true, 0, true},
		"it failed":            {process.Ready, false, 0, false},
	} {
		l := loopWithLink(t)
		i := servedAt(withChild(l.get("X"), test.state), "10.0.0.1")
		i.child.record.Stop.Grace = 3 * time.Second
		if test.state == process.Ready {
			i.child.ready = time.Now()
		}
		l.stop(i, "why", test.planned)
		f := l.farewell(i)
		if !i.reported || f.Grace != test.grace || f.answered != nil != test.waits || f.reason != "why" {
			t.Errorf("%s: reported %v, then %+v", name, i.reported, f)
		}
	}
}
