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
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/lan/wire"
)

// DefaultListen is where agents look first.
const DefaultListen = "127.0.0.1:23552"

// Config is what a Manager is made of. The zero value of every field stands for
// its default.
type Config struct {
	Directory string        // holds .allexlanmanager; default: the working directory
	Listen    string        // host:port of the WebSocket listener; default: DefaultListen
	Grace     time.Duration // for services of an id to be confirmed or their agent to return; default 5 s
	Silence   time.Duration // after which a connection without a unit is closed; default 20 s
	Backlog   int           // bytes waiting for one peer, beyond which it is dropped; default 32 MiB
	Limits    wire.Limits
	Logger    hclog.Logger // default: none
}

func (c Config) orDefault() Config {
	c.Directory = cmp.Or(c.Directory, ".")
	c.Listen = cmp.Or(c.Listen, DefaultListen)
	c.Grace = cmp.Or(c.Grace, 5*time.Second)
	c.Silence = cmp.Or(c.Silence, 20*time.Second)
	c.Backlog = cmp.Or(c.Backlog, 32<<20)
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c
}

// Manager is a LAN manager. Listen and Run are called from one goroutine, once.
type Manager struct {
	config   Config
	log      hclog.Logger
	listener net.Listener
	crew     *crew

	// The core's.
	lan   *lan
	gate  *wire.Gate
	dirty []*connection // those that this turn of the core has units for
}

// New reads the files below the directory, and creates those that are absent. A
// file that can not be understood is reported, left as it is, and done without;
// the error is for a directory that can not be used.
func New(c Config) (*Manager, error) {
	c = c.orDefault()
	files, err := openFiles(c.Directory)
	if err != nil {
		return nil, err
	}
	m := &Manager{config: c, log: c.Logger, crew: newCrew()}
	m.gate = wire.NewGate(m.introduce, c.Limits)
	m.lan = newLAN(c, m.crew, files, m.gate.NewID)
	return m, nil
}

func (m *Manager) introduce(c *wire.Channel, credentials json.RawMessage) (wire.Grant, error) {
	return m.lan.introduce(c.Peer(), credentials)
}

// Listen takes the listen address, so that whoever knows the returned address
// can connect. Run serves the connections.
func (m *Manager) Listen() (net.Addr, error) {
	if m.listener == nil {
		listener, err := net.Listen("tcp", m.config.Listen)
		if err != nil {
			return nil, fmt.Errorf("the LAN manager can not listen on %s: %w; "+
				"stop what is there, or choose another address", m.config.Listen, err)
		}
		m.listener = listener
	}
	return m.listener.Addr(), nil
}

// Run listens, if Listen was not called, and serves until ctx ends. The error is
// nil then, and otherwise says why there is nothing to serve.
func (m *Manager) Run(ctx context.Context) error {
	if _, err := m.Listen(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { m.crew.dismiss(nil) })
	defer stop()
	server := &http.Server{
		Handler:           http.HandlerFunc(m.upgrade),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       5 * time.Second,
		ErrorLog:          m.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	m.crew.outside(func(context.Context) func() {
		err := server.Serve(m.listener)
		return func() { m.crew.dismiss(err) }
	})
	m.log.Info("LAN manager listens", "address", m.listener.Addr(), "needs", m.lan.needs.Len())
	m.work()
	server.Close()
	m.crew.tasks.Wait()
	if err := context.Cause(m.crew.ctx); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("the LAN manager no longer serves %s: %w", m.config.Listen, err)
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
			f()
		}
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
	}
}

func (m *Manager) upgrade(w http.ResponseWriter, r *http.Request) {
	conn, err := wire.Upgrade(w, r, m.config.Limits)
	if err != nil {
		m.log.Debug("no WebSocket", "peer", r.RemoteAddr, "error", err)
		return
	}
	if !m.crew.post(func() { m.serve(conn) }) {
		conn.Close()
	}
}

// serve takes a connection in. It runs in the core.
func (m *Manager) serve(conn wire.Conn) {
	ctx, drop := context.WithCancel(m.crew.ctx)
	c := &connection{conn: conn, log: m.log, limits: m.config.Limits, drop: drop,
		backlog: m.config.Backlog, wake: make(chan struct{}, 1), gone: make(chan struct{})}
	c.channel = m.gate.Open(address(conn.RemoteAddr()), func(u wire.Unit) {
		if c.size == 0 {
			m.dirty = append(m.dirty, c)
		}
		c.send(u)
	})
	m.crew.outside(func(context.Context) func() {
		defer drop()
		err := c.read(ctx, m.config.Silence, m.crew.post)
		return func() { c.closed(err) }
	})
	m.crew.outside(func(context.Context) func() {
		c.write()
		return nil
	})
}

// address is the IP address of a peer; the zero one, which nobody admits, if it
// has none.
func address(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
