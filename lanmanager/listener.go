package lanmanager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/lan/wire"
	"github.com/allexgo/machine-agent/lanmanager/page"
)

// Envelope is how a listener's peers carry their units (PROTOCOL section 1).
type Envelope string

// The envelopes that are served.
const (
	WebSocket Envelope = "ws"
	SignalR   Envelope = "signalr" // what a stock master speaks
)

// Listener is where peers connect.
type Listener struct {
	Envelope Envelope
	Address  string // host:port
	// Original is one of the original's ports, whose peers know neither token
	// nor TLS. Those that speak SignalR always are.
	Original bool
}

func (l Listener) String() string { return string(l.Envelope) + " " + l.Address }

// plain tells that neither token nor TLS is asked for here.
func (l Listener) plain() bool { return l.Original || l.Envelope == SignalR }

// Listen takes the addresses of all listeners and of the page, so that whoever
// knows them can connect. Run serves the connections. Of the page it only warns
// if its address is taken.
func (m *Manager) Listen() error {
	if m.listeners != nil {
		return nil
	}
	for i, l := range m.config.Listeners {
		listener, err := net.Listen("tcp", l.Address)
		if err != nil {
			m.closeListeners()
			return fmt.Errorf("the LAN manager can not listen on %s (%s): %w; %s", l.Address, l.Envelope, err, l.cure())
		}
		m.config.Listeners[i].Address = listener.Addr().String()
		m.listeners = append(m.listeners, listener)
	}
	if m.config.Page == noPage {
		return nil
	}
	var err error
	if m.page, err = net.Listen("tcp", m.config.Page); err != nil {
		m.log.Warn("there is no page: its address can not be listened on; choose another httpmonitorport in boot", "error", err)
	}
	return nil
}

func (l Listener) cure() string {
	if l.Original {
		return `stop what is there, perhaps the original allexlanmanager, or set "originalports": false in boot`
	}
	return "stop what is there, perhaps another LAN manager, or choose another address (portcorrection in boot moves all)"
}

// Addresses are those that Listen took, in the order of the listeners, then
// that of the page if there is one.
func (m *Manager) Addresses() []net.Addr {
	var all []net.Addr
	for _, l := range m.listeners {
		all = append(all, l.Addr())
	}
	if m.page != nil {
		all = append(all, m.page.Addr())
	}
	return all
}

func (m *Manager) closeListeners() {
	for _, l := range m.listeners {
		l.Close()
	}
	m.listeners = nil
}

// serve has everything served until the crew is dismissed; it returns at once.
// What it returns ends the serving and waits for the requests under way.
func (m *Manager) serve() (stop func()) {
	var servers []*http.Server
	var closers []func()
	for i, l := range m.config.Listeners {
		listener, server := m.listeners[i], m.server(m.handler(l))
		if t := m.settings.tls; t != nil && !l.plain() {
			t = t.Clone()
			t.NextProtos = []string{"http/1.1"} // WebSocket is no matter of HTTP/2 here
			listener = tls.NewListener(listener, t)
		}
		servers = append(servers, server)
		m.crew.outside(func(context.Context) func() {
			err := server.Serve(listener)
			return func() { m.crew.dismiss(fmt.Errorf("the LAN manager no longer serves %s: %w", l, err)) }
		})
		m.log.Info("LAN manager listens", "address", listener.Addr(), "envelope", l.Envelope)
	}
	if m.page != nil {
		shown := page.New(page.Config{Source: m, Logger: m.log.Named("page"), Registry: m.metrics.registry})
		closers = append(closers, shown.Close)
		server := m.server(shown)
		servers = append(servers, server)
		m.crew.outside(func(context.Context) func() {
			if err := server.Serve(m.page); !errors.Is(err, http.ErrServerClosed) {
				m.log.Error("the page is no longer served; restart the LAN manager to have it again", "error", err)
			}
			return nil
		})
		m.log.Info("page of the LAN", "url", "http://"+m.page.Addr().String()+"/")
	}
	return func() {
		for _, close := range closers {
			close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		for _, server := range servers {
			if server.Shutdown(ctx) != nil {
				server.Close()
			}
		}
	}
}

func (m *Manager) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return m.crew.ctx },
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       5 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          m.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// handler takes the peers of a listener in: first the door, then the envelope.
func (m *Manager) handler(l Listener) http.Handler {
	var envelope http.Handler
	switch l.Envelope {
	case SignalR:
		envelope = wire.NewSignalR(func(conn wire.Conn) { m.take(conn, SignalR, "") },
			wire.SignalROptions{Limits: m.config.Limits.Wire, Logger: m.log})
	default:
		envelope = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, err := wire.Upgrade(w, r, m.config.Limits.Wire)
			if err != nil {
				m.log.Debug("no WebSocket", "peer", r.RemoteAddr, "error", err)
				return
			}
			m.take(conn, WebSocket, m.door.proof(r, l))
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.door.lets(w, r, l) {
			envelope.ServeHTTP(w, r)
		}
	})
}
