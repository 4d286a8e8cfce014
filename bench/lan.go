//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// lanSize is how much LAN there is.
type lanSize struct{ needs, agents, mirrors, changes int }

// benchLAN measures the LAN manager, in a process of its own, under a crowd of
// agents that are simulated in this one: with no needs for the weight of the
// agents, with a tenth of the needs, and with all, for the growth.
func benchLAN(ctx context.Context, bin string, size lanSize) error {
	if size.needs < 10 || size.agents < 2 || size.changes < 1 {
		return errors.New("the LAN manager is measured with at least 10 needs, 2 agents and 1 change")
	}
	dir, err := os.MkdirTemp("", "machine-agent-bench-lan-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("LAN manager with %d agents: simulated in one process, which is not its own, on real WebSockets from\n"+
		"addresses of their own. Each follows both tables and bids for its share; every need has two bidders. All count\n"+
		"every item and keep the number and the sum of the names on both tables; %d keep full mirrors. Both are compared\n"+
		"with what the LAN manager's tables hold at the end. Load of the machine before: %s.\n\n",
		size.agents, size.mirrors, load())
	var results []lanResult
	for _, needs := range []int{0, size.needs / 10, size.needs} {
		at := size
		at.needs = needs
		r, err := measureLAN(ctx, bin, filepath.Join(dir, strconv.Itoa(needs)), at)
		if err != nil {
			return fmt.Errorf("%d agents and %d needs: %w", size.agents, needs, err)
		}
		results = append(results, r)
	}
	printLAN(results[1:])
	printGrowth(results[0], results[1], results[2])
	return nil
}

// load is the average load of the last minute.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// lanResult is what was measured with one size.
type lanResult struct {
	lanSize
	connected, served  time.Duration // until all have read the tables; then until all needs are served and all know
	cpuRead, cpuServe  time.Duration // of the LAN manager, for the same
	pss, rss, peak     float64       // of the LAN manager, in MiB, with all served
	crowdPSS, crowdRSS float64       // of this process
	downs, adds        []time.Duration
	items              int64
}

// crowd is all simulated agents.
type crowd struct {
	lanSize
	address  string
	agents   []*simulated
	tasks    sync.WaitGroup
	bidding  atomic.Bool
	accepted []atomic.Int32 // how often each need's response was accepted
	owner    []atomic.Int32 // whose it was the last time
	closing  chan struct{}
	failed   context.CancelCauseFunc
	ignorant atomic.Int32  // agents that do not have all services yet
	complete chan struct{} // closed when there are none
	probe    atomic.Pointer[probe]
}

// probe is a change whose way to the agents' tables is measured.
type probe struct {
	table int
	kind  byte
	need  int
	by    *simulated
	began time.Time
	left  atomic.Int32
	took  []time.Duration // by agent
	done  chan struct{}
}

func (c *crowd) lost(a *simulated, err error) {
	select {
	case <-c.closing:
	default:
		c.failed(fmt.Errorf("agent %d: %w", a.number, err))
	}
}

// seen is called by the readers for every record that came, changed or went.
func (c *crowd) seen(a *simulated, which int, kind byte, need int, now time.Time) {
	if which == servicesTable && kind == 'c' && a.tables[which].length.Load() == int64(c.needs) && a.tables[which].items['c'] == int64(c.needs) {
		if c.ignorant.Add(-1) == 0 {
			close(c.complete)
		}
	}
	p := c.probe.Load()
	if p == nil || p.by == a || p.table != which || p.kind != kind || p.need != need {
		return
	}
	p.took[a.number] = now.Sub(p.began)
	if p.left.Add(-1) == 0 {
		close(p.done)
	}
}

// measureLAN is one LAN from its beginning to its end.
func measureLAN(ctx context.Context, bin, dir string, size lanSize) (r lanResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	ctx, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return r, err
	}
	l := &lab.Lab{Dir: dir, Bin: bin}
	defer func() { err = errors.Join(err, l.Close()) }()
	needs := make([]lab.Need, size.needs)
	for n := range needs {
		needs[n] = lab.Need{InstanceName: needName(n), ModuleName: "module"}
	}
	manager, err := l.StartLANManager("lan", needs)
	if err != nil {
		return r, err
	}
	program := process(manager.PID())
	c := &crowd{lanSize: size, address: manager.Address, failed: failed, closing: make(chan struct{}), complete: make(chan struct{}),
		agents: make([]*simulated, size.agents), accepted: make([]atomic.Int32, size.needs), owner: make([]atomic.Int32, size.needs)}
	for i := range c.agents {
		c.agents[i] = newSimulated(c, i)
	}
	defer c.tasks.Wait()
	defer c.close()
	c.tasks.Go(c.keepAlive)

	r.lanSize = size
	began, cpu := time.Now(), program.cpu()
	if err := c.connectAll(ctx); err != nil {
		return r, err
	}
	r.connected, r.cpuRead = time.Since(began), program.cpu()-cpu
	began, cpu = time.Now(), program.cpu()
	if err := c.serveAll(ctx); err != nil {
		return r, err
	}
	r.served, r.cpuServe = time.Since(began), program.cpu()-cpu
	r.peak = program.peak()
	time.Sleep(settle)
	r.pss, r.rss = program.pss(), program.rss()
	self := process(os.Getpid())
	r.crowdPSS, r.crowdRSS = self.pss(), self.rss()
	if size.needs > 0 {
		if err := c.changesOneByOne(ctx, &r); err != nil {
			return r, err
		}
	}
	for _, a := range c.agents {
		for _, f := range a.tables {
			for _, n := range f.items {
				r.items += n
			}
		}
	}
	return r, c.check(ctx)
}

func (c *crowd) connectAll(ctx context.Context) error {
	together, ctx := errgroup.WithContext(ctx)
	together.SetLimit(16)
	for _, a := range c.agents {
		together.Go(func() error { return a.connect(ctx) })
	}
	return together.Wait()
}

// serveAll lets the agents bid and waits until all of them have all services.
func (c *crowd) serveAll(ctx context.Context) error {
	if c.needs == 0 {
		return nil
	}
	c.ignorant.Store(int32(len(c.agents)))
	c.bidding.Store(true)
	for _, a := range c.agents {
		a.begin()
	}
	return c.await(ctx, "all needs are served and all agents know", c.complete)
}

func (c *crowd) await(ctx context.Context, what string, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("it did not come to that: %s: %w", what, context.Cause(ctx))
	}
}

// keepAlive pings for all agents.
func (c *crowd) keepAlive() {
	ticks := time.NewTicker(5 * time.Second)
	defer ticks.Stop()
	for n := 0; ; n++ {
		select {
		case <-ticks.C:
		case <-c.closing:
			return
		}
		for _, a := range c.agents {
			a.write(wire.Unit{Kind: wire.Ping, Value: strconv.AppendInt(nil, int64(n), 10)})
		}
	}
}

// close ends all agents. One goroutine calls it.
func (c *crowd) close() {
	select {
	case <-c.closing:
		return
	default:
		close(c.closing)
	}
	for _, a := range c.agents {
		a.close()
	}
}

// changesOneByOne measures how long a change by one agent takes to the tables of
// all others: a service that goes down, which is then served again, and a need
// that is added, and removed again.
func (c *crowd) changesOneByOne(ctx context.Context, r *lanResult) error {
	for k := range c.changes {
		n := k * 7919 % c.needs
		down := &probe{table: servicesTable, kind: 'd', need: n, by: c.agents[c.owner[n].Load()]}
		if err := c.measure(ctx, down, "notifyServiceDown", needName(n)); err != nil {
			return err
		}
		r.downs = append(r.downs, down.took...)
		if err := c.settled(ctx); err != nil {
			return err
		}
		name := needName(c.needs + k)
		add := &probe{table: needsTable, kind: 'c', need: c.needs + k, by: c.agents[k%len(c.agents)]}
		if err := c.measure(ctx, add, "addNeed", map[string]string{"instancename": name, "modulename": "module"}); err != nil {
			return err
		}
		r.adds = append(r.adds, add.took...)
		if _, err := add.by.ask(ctx, request(add.by.lan, wire.Business, "removeNeed", name)); err != nil {
			return err
		}
		if err := c.settled(ctx); err != nil {
			return err
		}
	}
	return nil
}

// measure has an agent call a method and waits until all others know what it
// changed. That a place of took belongs to the caller itself is known by its 0.
func (c *crowd) measure(ctx context.Context, p *probe, method string, arg any) error {
	p.done, p.took = make(chan struct{}), make([]time.Duration, len(c.agents))
	p.left.Store(int32(len(c.agents) - 1))
	p.began = time.Now()
	c.probe.Store(p)
	if _, err := p.by.ask(ctx, request(p.by.lan, wire.Business, method, arg)); err != nil {
		return err
	}
	err := c.await(ctx, "all know of "+method, p.done)
	c.probe.Store(nil)
	p.took = slices.DeleteFunc(p.took, func(d time.Duration) bool { return d == 0 })
	return err
}

// settled waits until all agents have every need among their services and none
// among their needs.
func (c *crowd) settled(ctx context.Context) error {
	for {
		if !slices.ContainsFunc(c.agents, func(a *simulated) bool {
			return a.tables[needsTable].length.Load() != 0 || a.tables[servicesTable].length.Load() != int64(c.needs)
		}) {
			return nil
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the tables did not settle: %w", context.Cause(ctx))
		}
	}
}

// check ends the agents and compares what they have seen with what there is.
func (c *crowd) check(ctx context.Context) error {
	truth, err := readTables(ctx, c.address)
	if err != nil {
		return err
	}
	c.close()
	c.tasks.Wait()
	for n := range c.accepted {
		want := int32(1)
		for k := range c.changes {
			if k*7919%c.needs == n {
				want++
			}
		}
		if got := c.accepted[n].Load(); got != want {
			return fmt.Errorf("%s was served %d times, want %d", needName(n), got, want)
		}
	}
	changes := int64(min(c.changes, c.needs*c.changes)) // none without needs
	needs, sum := int64(c.needs), uint64(0)
	for n := range c.needs {
		sum += hash(n)
	}
	for _, a := range c.agents {
		for which, want := range [...]map[byte]int64{
			needsTable:    {'r': needs, 'c': 2 * changes, 'd': needs + 2*changes},
			servicesTable: {'r': 0, 'c': needs + changes, 'd': changes},
		} {
			f := a.tables[which]
			for kind, n := range want {
				if f.items[kind] != n {
					return fmt.Errorf("agent %d got %d items %c of the %s, want %d", a.number, f.items[kind], kind, followedNames[which], n)
				}
			}
			if f.length.Load() != int64(truth[which].Len()) || which == servicesTable && f.sum != sum || which == needsTable && f.sum != 0 {
				return fmt.Errorf("agent %d has other %s than the LAN manager", a.number, followedNames[which])
			}
			if f.mirror == nil {
				continue
			}
			for key, record := range truth[which].All() {
				if mine, ok := f.mirror.Get(key); !ok || !mine.Equal(record) {
					return fmt.Errorf("agent %d has %s as %s, the LAN manager as %s", a.number, key, mine.JSON(), record.JSON())
				}
			}
		}
	}
	return nil
}

// readTables reads the needs and the services as somebody who comes now does.
func readTables(ctx context.Context, address string) (tables [2]*table.Mirror, err error) {
	conn, err := wire.Dial(ctx, "ws://"+address+"/", wire.DialOptions{})
	if err != nil {
		return tables, err
	}
	client := wire.NewClient(conn, wire.ClientOptions{})
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }()
	defer func() {
		stop()
		<-ended
	}()
	lan, err := client.Introduce(ctx, map[string]any{"ip": map[string]string{"name": "reader", "role": "user", "id": "reader"}})
	if err != nil {
		return tables, err
	}
	for i, schema := range []*table.Schema{table.Needs, table.Services} {
		session, err := lan.Sub(ctx, followedNames[i], map[string]string{})
		if err != nil {
			return tables, err
		}
		mirror := table.NewMirror(schema)
		var odd error
		err = session.Query(ctx, map[string]bool{"continuous": false}, func(item json.RawMessage) {
			_, err := mirror.Apply(item)
			odd = errors.Join(odd, err)
		})
		if err = errors.Join(err, odd); err != nil {
			return tables, err
		}
		tables[i] = mirror
	}
	return tables, nil
}
