// Package page is the LAN manager's web page: what is needed and why it is open,
// what is served where, the machines, the NAT table, what happened lately, and
// above all of it the mistakes in the files. It only shows; nothing can be
// changed through it.
//
// The LAN manager hands in a Source. A keeper has snapshots made, few of them
// however many look, and shares each among all viewers; a table's orders and its
// text to search are made once a snapshot, when somebody needs them. The server
// renders every view whole, so that the page works without its script; the script
// follows /api/changes, fetches the view anew when the revision moves, and
// carries the differences into what is there.
//
// It imports nothing of the LAN manager; only that imports it.
package page

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config is what a Page is made of.
type Config struct {
	Source   Source
	Logger   hclog.Logger         // default: none
	Registry *prometheus.Registry // of /metrics; default: an empty one
}

// Page serves the page at /, JSON below /api/, the changes as server-sent events
// at /api/changes, /metrics and /healthz. Its server needs no limit for writing
// (changes sets its own) but one for reading headers.
type Page struct {
	log     hclog.Logger
	keeper  *keeper
	viewers chan struct{} // one for each that follows the changes
	html    *template.Template
	handler http.Handler

	stop context.CancelFunc
	work sync.WaitGroup
}

// functions are what the template calls.
var functions = template.FuncMap{
	"visible": visible,
	"lines":   func(text string) []string { return strings.Split(text, "\n") },
}

//go:embed page.html page.css page.js icon.svg
var static embed.FS

// New makes a Page, which asks its Source only when somebody looks. The caller
// closes it.
func New(c Config) *Page {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Page{
		log:     c.Logger,
		keeper:  newKeeper(ctx, c.Source),
		viewers: make(chan struct{}, mostViewers),
		html:    template.Must(template.New("page.html").Funcs(functions).ParseFS(static, "page.html")),
		stop:    stop,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", p.show)
	mux.Handle("/page.css", file("page.css", "text/css; charset=utf-8"))
	mux.Handle("/page.js", file("page.js", "text/javascript; charset=utf-8"))
	mux.Handle("/icon.svg", file("icon.svg", "image/svg+xml"))
	mux.HandleFunc("/api/lan", p.lan)
	mux.HandleFunc("/api/{table}", p.list)
	mux.HandleFunc("/api/changes", p.changes)
	mux.HandleFunc("/healthz", p.health)
	mux.Handle("/metrics", promhttp.HandlerFor(c.Registry, promhttp.HandlerOpts{
		ErrorLog: c.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
	}))
	p.handler = guard(mux)
	p.work.Go(p.keeper.run)
	return p
}

// ServeHTTP answers GET and HEAD.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.handler.ServeHTTP(w, r) }

// Close ends what the page does, and the requests of those that follow the
// changes. From then on it answers 503. Close the page before its server, which
// otherwise waits for them. It may be called twice.
func (p *Page) Close() {
	p.stop()
	p.work.Wait()
}

// file serves one of the embedded files. Browsers keep it, and ask whether it
// has changed.
func file(name, contentType string) http.Handler {
	content, err := static.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	tag := fmt.Sprintf(`"%x"`, sha256.Sum256(content))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", tag)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
	})
}

// patience is how long whoever looks waits for the core.
const patience = 5 * time.Second

// moment is the state to show; nil if there is none, which it has told w then.
func (p *Page) moment(w http.ResponseWriter, r *http.Request) *moment {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	current, err := p.keeper.get(ctx)
	if err == nil {
		return current.moment
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("its core has not answered within %v", patience)
	}
	http.Error(w, "The LAN manager can not be shown: "+err.Error()+".", http.StatusServiceUnavailable)
	return nil
}

// show is the page itself.
func (p *Page) show(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.RawQuery, "")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m := p.moment(w, r)
	if m == nil {
		return
	}
	var page bytes.Buffer
	if err := p.html.Execute(&page, newView(m, q, time.Now())); err != nil {
		p.log.Error("the page can not be rendered", "error", err)
		http.Error(w, "The page can not be rendered; the log of the LAN manager says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(page.Bytes())
}

// lan is what there is beside the tables: version, listeners, problems.
func (p *Page) lan(w http.ResponseWriter, r *http.Request) {
	if m := p.moment(w, r); m != nil {
		writeJSON(w, http.StatusOK, m.Snapshot)
	}
}

// list is a page of a table, for programs. The query is that of the page.
func (p *Page) list(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.RawQuery, r.PathValue("table"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m := p.moment(w, r)
	if m == nil {
		return
	}
	t := m.tables[q.tab]
	found := t.find(q)
	records := make([]any, len(found.rows))
	for i, row := range found.rows {
		records[i] = t.rows.record(row)
	}
	writeJSON(w, http.StatusOK, struct {
		Revision uint64    `json:"revision"`
		Time     time.Time `json:"time"`
		Total    int       `json:"total"`
		Matched  int       `json:"matched"`
		Page     int       `json:"page"`
		Pages    int       `json:"pages"`
		Rows     []any     `json:"rows"`
	}{m.Revision, m.Time, found.total, found.matched, found.page, found.pages, records})
}

// proof is how old a snapshot may be for the core to count as at work, and how
// long it may take.
const proof = time.Second

// health answers 200 if the core is at work, with what it is at work on.
func (p *Page) health(w http.ResponseWriter, r *http.Request) {
	type health struct {
		Status   string `json:"status"`
		Needs    int    `json:"needs"`
		Open     int    `json:"open"`
		Services int    `json:"services"`
		Problems int    `json:"problems"`
	}
	ctx, cancel := context.WithTimeout(r.Context(), proof)
	defer cancel()
	current, err := p.keeper.fresh(ctx, proof)
	if err != nil {
		writeJSON(w, http.StatusServiceUnavailable, health{Status: "the core does not answer"})
		return
	}
	m := current.moment
	writeJSON(w, http.StatusOK, health{"ok", len(m.Needs), m.Open, len(m.Services), len(m.Problems)})
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(value)
}
