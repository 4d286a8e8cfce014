// Package lanmanager is the LAN manager of this project: it holds the list of
// the services that must run (needs) and of those that do (services), lets
// agents bid for the open needs, tries the ports of the winners, and opens a
// need again when its service is gone. It speaks the wire of the original and
// reads its files (lan/PROTOCOL.md; design section 8 says where it is better).
//
// One goroutine, the core, owns all of the LAN's state (type lan). Around it
// each connection has one goroutine that reads and parses and one that writes;
// port checks, file writes and timers live outside too and come back through
// the core's inbox. So nothing on the way from a death to an accepted
// replacement waits for a disk, a peer or a clock.
//
// Only cmd imports it.
package lanmanager

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/lan/wire"
)

// noPage as Config.Page means that there is none.
const noPage = "-"

// Config is what a Manager is made of. The zero value of every field stands for
// its default.
type Config struct {
	Directory  string        // holds .allexlanmanager; default: the working directory
	ProjectMap string        // may name another directory for some files; default: /var/opt/allexjs/projectmap.json
	Listeners  []Listener    // default: what the file boot says
	Page       string        // host:port of the page, "-" none; default: what boot says, or none if Listeners are given
	Version    string        // of this program, for the page
	Grace      time.Duration // for the agent of services to return, and to confirm the rest when it has begun to; default 5 s
	Confirm    time.Duration // for an agent that has come to begin with that: it reads the tables first; default 1 min
	Silence    time.Duration // after which a connection without a unit is closed; default 20 s
	Limits     Limits
	Logger     hclog.Logger // default: none
}

// Limits bound what peers can make a LAN manager hold. A zero field stands for
// its default.
type Limits struct {
	Wire        wire.Limits // of each connection
	Connections int         // in all; default 4,096
	PerAddress  int         // connections of one address; default 1,024
	Queries     int         // continuous queries of a connection; default 1,024
	Waiting     int         // subConnects of a connection to what is not there; default 32,768
	Backlog     int         // bytes waiting for one peer, beyond which it is dropped; default 32 MiB
}

func (c Config) orDefault() Config {
	c.Directory = cmp.Or(c.Directory, ".")
	c.ProjectMap = cmp.Or(c.ProjectMap, "/var/opt/allexjs/projectmap.json")
	c.Grace = cmp.Or(c.Grace, 5*time.Second)
	c.Confirm = cmp.Or(c.Confirm, time.Minute)
	c.Silence = cmp.Or(c.Silence, 20*time.Second)
	c.Limits.Connections = cmp.Or(c.Limits.Connections, 4096)
	c.Limits.PerAddress = cmp.Or(c.Limits.PerAddress, 1024)
	c.Limits.Queries = cmp.Or(c.Limits.Queries, 1024)
	c.Limits.Waiting = cmp.Or(c.Limits.Waiting, 32768)
	c.Limits.Backlog = cmp.Or(c.Limits.Backlog, 32<<20)
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c
}

// listens fills in where to listen from what boot says.
func (c Config) listens(s settings) Config {
	switch {
	case c.Listeners == nil:
		c.Listeners = s.listeners
		c.Page = cmp.Or(c.Page, s.page, noPage)
	default:
		c.Listeners = append([]Listener(nil), c.Listeners...)
		c.Page = cmp.Or(c.Page, noPage)
	}
	return c
}

// Manager is a LAN manager. Listen and Run are called from one goroutine, once.
type Manager struct {
	config    Config
	settings  settings
	log       hclog.Logger
	files     *files
	crew      *crew
	door      *door
	metrics   *metrics
	news      *news
	listeners []net.Listener // of config.Listeners, in their order
	page      net.Listener   // nil: there is none

	// The core's.
	lan   *lan
	gate  *wire.Gate
	dirty []*connection // those that this turn of the core has units for

	writers sync.Pool // of *unitWriter, of all connections
}

// New reads the files below the directory, and creates those that are absent. A
// file that can not be understood is reported, left as it is, and done without;
// the error is for a directory that can not be used.
func New(c Config) (*Manager, error) {
	c = c.orDefault()
	files, settings, problems, err := openFiles(c.Directory, c.ProjectMap)
	if err != nil {
		return nil, err
	}
	c = c.listens(settings)
	for _, warning := range settings.warnings {
		c.Logger.Warn(warning)
	}
	m := &Manager{config: c, settings: settings, log: c.Logger, files: files,
		crew: newCrew(), metrics: newMetrics(), news: &news{}}
	m.writers.New = func() any { return new(unitWriter) }
	m.door = newDoor(settings, c.Limits, m.metrics.refused, m.refused)
	m.gate = wire.NewGate(m.introduce, c.Limits.Wire)
	m.lan = newLAN(m, problems)
	m.metrics.look(m.lan)
	return m, nil
}

func (m *Manager) introduce(c *wire.Channel, credentials json.RawMessage) (wire.Grant, error) {
	return m.lan.introduce(m.lan.visitor(c), credentials)
}

// Run listens, if Listen was not called, and serves until ctx ends. The error is
// nil then, and otherwise says why there is nothing to serve.
func (m *Manager) Run(ctx context.Context) error {
	defer m.files.close()
	if err := m.Listen(); err != nil {
		return err
	}
	dismiss := context.AfterFunc(ctx, func() { m.crew.dismiss(nil) })
	defer dismiss()
	m.crew.outside(m.follow)
	stop := m.serve()
	m.work()
	stop()
	m.crew.tasks.Wait()
	if err := context.Cause(m.crew.ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// work is the core. What comes in while it is at work is done in the same turn,
// so that a peer gets in one frame what there is for it.
func (m *Manager) work() {
	const most = 256 // in one turn, so that the first of them does not wait for ever
	for {
		select {
		case <-m.crew.ctx.Done():
			return
		case f := <-m.crew.inbox:
			began := time.Now()
			f()
			m.turn(most)
			m.metrics.turn.Observe(time.Since(began).Seconds())
		}
	}
}

// turn does what else has come in, at most so much, and then hands out what all
// of it has for peers and for those who look.
func (m *Manager) turn(most int) {
	for more := most; more > 0; more-- {
		select {
		case f := <-m.crew.inbox:
			f()
			continue
		default:
		}
		break
	}
	for i := 0; i < len(m.dirty); i++ { // it grows when a peer is dropped
		m.dirty[i].flush()
	}
	clear(m.dirty)
	m.dirty = m.dirty[:0]
	if m.lan.changed {
		m.lan.changed = false
		m.metrics.look(m.lan)
		m.news.bump()
	}
}

// take takes a connection in, from whatever goroutine.
func (m *Manager) take(conn wire.Conn, e Envelope, proof string) {
	v := &visitor{address: address(conn.RemoteAddr()), envelope: e, proof: proof}
	if !m.door.enter(v.address) {
		conn.Close()
		return
	}
	if !m.crew.post(func() { m.connect(conn, v) }) {
		conn.Close()
		m.door.leave(v.address)
	}
}

// connect makes a channel of a connection. It runs in the core.
func (m *Manager) connect(conn wire.Conn, v *visitor) {
	ctx, drop := context.WithCancel(m.crew.ctx)
	c := &connection{conn: conn, log: m.log, limits: m.config.Limits, metrics: m.metrics, drop: drop, writers: &m.writers,
		wake: make(chan struct{}, 1), gone: make(chan struct{})}
	c.channel = m.gate.Open(v.address, func(u wire.Unit) {
		if c.size == 0 {
			m.dirty = append(m.dirty, c)
		}
		c.send(u)
	})
	m.lan.visitors[c.channel] = v
	open := m.metrics.connections[v.envelope]
	open.Inc()
	m.crew.outside(func(context.Context) func() {
		defer drop()
		defer m.door.leave(v.address)
		defer open.Dec()
		err := c.read(ctx, m.config.Silence, m.crew.post)
		return func() {
			c.closed(err)
			delete(m.lan.visitors, c.channel)
		}
	})
	m.crew.outside(func(context.Context) func() {
		c.write()
		return nil
	})
}

// refused notes a peer that was sent away before it had a connection.
func (m *Manager) refused(peer netip.Addr, text string) {
	m.crew.post(func() { m.lan.refused(peer.String(), text) })
}
