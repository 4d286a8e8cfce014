//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/e2e/lab"
)

var soakFor = flag.Duration("soak", 8*time.Second, "how long TestSoak goes on")

// After thousands of deaths, link losses and restarts an agent and a LAN manager
// that have lived through all of it are as they were: nothing has grown but their
// logs, and no promise is broken.
func TestSoak(t *testing.T) {
	s := newStage(t)
	s.endure(*soakFor + enough)
	r := newTrial(s, rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0)), 2, 20, 0)
	r.recovered()
	stop := r.watchDoubles()

	const warm = 10 // of so many parts of the time
	begin := time.Now()
	var before, after []footprint
	var did churn
	for time.Since(begin) < *soakFor {
		did.add(r.churn())
		if before == nil && time.Since(begin) > *soakFor/warm {
			r.restore()
			r.recovered()
			before = r.footprints()
		}
	}
	r.restore()
	r.recovered()
	stop()
	after = r.footprints()
	for i := range after {
		t.Logf("%s: %v at first, %v at the end", after[i].program, before[i], after[i])
		if grown := after[i].grown(before[i]); grown != "" {
			t.Errorf("%s has grown: %s", after[i].program, grown)
		}
	}
	t.Logf("%s: %d deaths, %d link losses, %d restarts of an agent", time.Since(begin).Round(time.Second), did.deaths, did.losses, did.restarts)
	r.promises()
}

// restore lets every agent reach the LAN manager, without which what others have taken
// over stays with it as well.
func (r *trial) restore() {
	for _, link := range r.links {
		link.restore()
	}
}

// churn counts what a soak has done.
type churn struct{ deaths, losses, restarts int }

func (c *churn) add(d churn) {
	c.deaths += d.deaths
	c.losses += d.losses
	c.restarts += d.restarts
}

// churn does one thing, and waits a moment. The first agent and the LAN manager
// live through everything.
func (r *trial) churn() (did churn) {
	link := r.links[r.random.IntN(len(r.links))]
	switch r.random.IntN(40) {
	default:
		for _, c := range r.lab.Children()[r.instances[r.random.IntN(len(r.instances))]] {
			c.Kill()
			did.deaths++
		}
	case 0:
		link.cut()
		did.losses++
	case 1, 2, 3:
		link.restore()
	case 4:
		r.must(r.agents[1].Stop([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[r.random.IntN(2)]))
		r.startAgent(1)
		did.restarts++
	}
	<-time.After(time.Duration(r.random.Int64N(int64(100 * time.Millisecond))))
	return did
}

// footprint is what a program uses.
type footprint struct {
	program              string
	descriptors, threads int
	memory               int // KiB of its own, and its share of what it shares
}

func (f footprint) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %d KiB", f.descriptors, f.threads, f.memory)
}

// grown is what has grown beyond what the same work can need at another moment;
// empty if nothing has.
func (f footprint) grown(since footprint) string {
	var grown []string
	for _, x := range []struct {
		what             string
		now, then, leave int
	}{
		{"descriptors", f.descriptors, since.descriptors, 20},
		{"threads", f.threads, since.threads, mostThreads}, // Go keeps those that a busy machine made it need
		{"KiB", f.memory, since.memory, max(8<<10, since.memory/2)},
	} {
		if x.now > x.then+x.leave {
			grown = append(grown, fmt.Sprintf("%d %s, were %d", x.now, x.what, x.then))
		}
	}
	return strings.Join(grown, ", ")
}

// footprints are those of the programs that live through everything.
func (r *trial) footprints() []footprint {
	return []footprint{r.footprintOf(r.agents[0].Program), r.footprintOf(r.manager.Program)}
}

func (r *trial) footprintOf(p *lab.Program) footprint {
	proc := fmt.Sprintf("/proc/%d", p.PID())
	f := footprint{program: p.Name}
	for list, count := range map[string]*int{"fd": &f.descriptors, "task": &f.threads} {
		entries, err := os.ReadDir(filepath.Join(proc, list))
		r.must(err)
		*count = len(entries)
	}
	rollup, err := os.ReadFile(filepath.Join(proc, "smaps_rollup"))
	r.must(err)
	for line := range strings.Lines(string(rollup)) {
		if n, _ := fmt.Sscanf(line, "Pss: %d kB", &f.memory); n == 1 {
			break
		}
	}
	return f
}
