//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/wire"
)

// Whenever the LAN manager ends during a thousand addNeed and removeNeed calls of
// several clients: every call that was answered holds after the restart, and no
// file is broken.
func TestLANManagerEndsDuringCalls(t *testing.T) {
	for _, how := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(strings.ReplaceAll(how.String(), " ", "-"), func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			const rounds, static = 4, 16
			l := &ledger{stage: newStage(t), random: rand.New(rand.NewPCG(seed, 0))}
			for i := range l.pages {
				for n := range l.pages[i] {
					l.pages[i][n] = entry{name: fmt.Sprintf("need-%d-%d", i, n)}
				}
			}
			var needs []lab.Need // of which some change, too
			for i := range static {
				e := &l.pages[i][0]
				e.sure = wanted{true, 0}
				needs = append(needs, lab.Need{InstanceName: e.name, ModuleName: "module", PropertyHash: map[string]any{"version": 0}})
			}
			m := l.lan(needs...)
			file := filepath.Join(m.Directory, ".allexlanmanager", "needs")
			before, err := os.ReadFile(file)
			l.must(err)
			for range rounds {
				l.round(m, how)
				if how == syscall.SIGTERM && m.ExitCode() != 0 {
					t.Errorf("exit code %d after %v:\n%s", m.ExitCode(), how, m.Output())
				}
				m = l.lan()
				l.settle(l.caller(m, "reader"))
				l.whole(filepath.Dir(file))
			}
			if after, err := os.ReadFile(file); string(after) != string(before) {
				t.Errorf("the file of needs has changed (%v):\n%s", err, after)
			}
		})
	}
}

// ledger is what the LAN manager has to know: a page for each of those who call
// at the same time. What one writes is in the order in which it happens.
type ledger struct {
	*stage
	random *rand.Rand
	pages  [4 * 8][6]entry
}

// entry is a need: whether it is wanted, and perhaps what was asked for after
// that without an answer.
type entry struct {
	name  string
	sure  wanted
	maybe *wanted
}

type wanted struct {
	open    bool
	version int // of its propertyhash
}

// round has clients call until the LAN manager has ended, which it is told to at
// one of the first thousand answers.
func (l *ledger) round(m *lab.LANManager, how syscall.Signal) {
	const clients, calls = 4, 1000
	at, seed := 1+l.random.Int64N(calls-1), l.random.Uint64()
	l.t.Logf("%v at answer %d", how, at)
	var callers [clients]*caller
	for i := range callers {
		callers[i] = l.caller(m, fmt.Sprint("caller-", i))
	}
	var answers atomic.Int64
	var tasks sync.WaitGroup
	for i := range l.pages {
		tasks.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for l.ctx.Err() == nil {
				e := &l.pages[i][random.IntN(len(l.pages[i]))]
				err := e.change(l.ctx, callers[i%clients], random.IntN(2) == 0)
				if errors.Is(err, wire.ErrLost) {
					return
				}
				if err != nil {
					l.t.Errorf("%s: %v", e.name, err)
					return
				}
				if answers.Add(1) == at {
					l.must(m.Signal(how))
				}
			}
			l.t.Error("the LAN manager has not ended")
		})
	}
	tasks.Wait()
	l.must(m.Stop(how))
	for _, c := range callers {
		c.stop()
	}
}

// change adds the need in a new version, or removes it.
func (e *entry) change(ctx context.Context, c *caller, add bool) error {
	next := wanted{open: add, version: e.sure.version + 1}
	e.maybe = &next
	var err error
	if add {
		err = c.business(ctx, "addNeed", map[string]any{"instancename": e.name, "modulename": "module", "propertyhash": map[string]int{"version": next.version}})
	} else {
		err = c.business(ctx, "removeNeed", e.name)
	}
	if err == nil {
		e.sure, e.maybe = next, nil
	}
	return err
}

// settle compares the ledger with the needs, and takes over how the calls
// without an answer have ended.
func (l *ledger) settle(c *caller) {
	l.t.Helper()
	needs := c.needs(l.stage)
	known := 0
	for i := range l.pages {
		for n := range l.pages[i] {
			e := &l.pages[i][n]
			is := wanted{version: e.sure.version}
			if need, open := needs[e.name]; open {
				known++
				var hash struct{ Version int }
				l.must(json.Unmarshal(need.PropertyHash, &hash))
				is = wanted{true, hash.Version}
			}
			switch {
			case is == e.sure || !is.open && !e.sure.open:
			case e.maybe != nil && is.open == e.maybe.open && (is.version == e.maybe.version || !is.open):
				e.sure = *e.maybe
			default:
				l.t.Errorf("after the restart %s is %+v; the last answer was to %+v, and without one is %+v", e.name, is, e.sure, e.maybe)
				e.sure = is
			}
			e.maybe = nil
		}
	}
	if known != len(needs) {
		l.t.Errorf("%d needs, of which %d are known", len(needs), known)
	}
}

// whole makes sure that every file parses, and that no temporary one is there.
func (l *ledger) whole(directory string) {
	l.t.Helper()
	files, err := os.ReadDir(directory)
	l.must(err)
	for _, file := range files {
		name := file.Name()
		if strings.HasSuffix(name, ".tmp") {
			l.t.Errorf("%s is left", name)
		}
		switch name {
		case "boot", "nat", "subnets", "needs", "needs.overlay", "needs.runtime":
			text, err := os.ReadFile(filepath.Join(directory, name))
			l.must(err)
			if !json.Valid(text) {
				l.t.Errorf("%s is broken:\n%s", name, text)
			}
		}
	}
}
