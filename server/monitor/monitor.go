// Package monitor shows how an agent is to programs that watch over machines:
// over HTTP, /metrics in the text format of Prometheus and /healthz. It asks the
// agent when it is asked itself, keeps nothing, and changes nothing.
//
// Whoever can connect may read: no figure names an instance or tells a secret.
// Only cmd may import this package.
package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/net/netutil"

	"github.com/allexgo/machine-agent/agent/metrics"
)

// Agent is what the monitor asks.
type Agent interface {
	// Census is safe for concurrent use and returns soon after ctx ends.
	Census(ctx context.Context) (metrics.Census, error)
}

// API is what the monitor asks about callers, at any time.
type API interface {
	Connections() int
	Streams() int
}

// Config is what a Monitor is made of; all fields must be set.
type Config struct {
	Agent   Agent
	API     API
	Figures *metrics.Figures
	Logger  hclog.Logger
}

const (
	patience      = time.Second // of whoever asks, with the agent's loop
	requestLimit  = 2 * time.Second
	answerLimit   = 10 * time.Second
	idleLimit     = 2 * time.Minute // more than most let pass between two looks
	headerSize    = 8 << 10
	mostConnected = 16
	stopLimit     = time.Second // for answers under way when the monitor leaves
	exposition    = "text/plain; version=0.0.4; charset=utf-8"
)

// Monitor answers at one address. Make it with New; Serve has it answer.
type Monitor struct {
	Config
	mux *http.ServeMux
}

// New makes a Monitor.
func New(c Config) *Monitor {
	m := &Monitor{Config: c, mux: http.NewServeMux()}
	m.mux.HandleFunc("GET /metrics", m.metrics)
	m.mux.HandleFunc("GET /healthz", m.health)
	return m
}

// ServeHTTP answers GET and HEAD of /metrics and /healthz.
func (m *Monitor) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.mux.ServeHTTP(w, r) }

// Serve answers on l until ctx ends; it closes l. An error means that l failed.
func (m *Monitor) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:        m,
		ReadTimeout:    requestLimit,
		WriteTimeout:   answerLimit,
		IdleTimeout:    idleLimit,
		MaxHeaderBytes: headerSize,
		ErrorLog:       m.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(netutil.LimitListener(l, mostConnected)) }()
	m.Logger.Info("metrics are shown", "url", fmt.Sprintf("http://%s/metrics", l.Addr()))
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	within, stop := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer stop()
	if server.Shutdown(within) != nil {
		server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// census asks the agent; nil if it does not answer, which w has been told then.
func (m *Monitor) census(w http.ResponseWriter, r *http.Request) *metrics.Census {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	c, err := m.Agent.Census(ctx)
	if err != nil {
		http.Error(w, fmt.Sprintf("the agent does not answer: %v; its log tells more", err), http.StatusServiceUnavailable)
		return nil
	}
	c.Connections, c.Streams = m.API.Connections(), m.API.Streams()
	return &c
}

func (m *Monitor) metrics(w http.ResponseWriter, r *http.Request) {
	c := m.census(w, r)
	if c == nil {
		return
	}
	var text bytes.Buffer
	m.Figures.Write(&text, *c)
	w.Header().Set("Content-Type", exposition)
	w.Write(text.Bytes())
}

// health answers 200 if the agent's loop is at work. The link to the LAN manager
// is told, but is not the agent's health: the processes run on without it.
func (m *Monitor) health(w http.ResponseWriter, r *http.Request) {
	c := m.census(w, r)
	if c == nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(struct {
		Status   string `json:"status"`
		Linked   bool   `json:"linked"`
		Services int    `json:"services"`
	}{"ok", c.Linked, c.Served})
}
