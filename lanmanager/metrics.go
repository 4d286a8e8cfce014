package lanmanager

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are the figures of a LAN manager. All of them are atomics that are
// looked up here once; nothing is made or searched while the core is at work.
type metrics struct {
	registry *prometheus.Registry

	needs, open, services, machines, sessions, problems prometheus.Gauge
	connections                                         map[Envelope]prometheus.Gauge

	bids, challenges, takenBack       prometheus.Counter
	accepted, unreachable, invalid    prometheus.Counter // responses
	unitsIn, unitsOut                 prometheus.Counter
	dropped, refused                  prometheus.Counter // peers
	reported, replaced, left, doubted prometheus.Counter // downs
	portCheck, turn                   prometheus.Histogram
}

func newMetrics() *metrics {
	r := prometheus.NewRegistry()
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "lanmanager", Name: name, Help: help})
		r.MustRegister(g)
		return g
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "lanmanager", Name: name, Help: help}, []string{label})
		r.MustRegister(c)
		return c
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "lanmanager", Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets ...float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "lanmanager", Name: name, Help: help, Buckets: buckets})
		r.MustRegister(h)
		return h
	}
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	connections := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "lanmanager", Name: "connections", Help: "Connections of peers."}, []string{"envelope"})
	r.MustRegister(connections)
	responses := counters("responses_total", "Responses of those who were challenged.", "result")
	downs := counters("service_downs_total", "Services that went off the table.", "reason")
	units := counters("units_total", "Units of the wire.", "direction")
	return &metrics{
		registry: r,
		needs:    gauge("needs", "Needs, open or served."),
		open:     gauge("needs_open", "Open needs."),
		services: gauge("services", "Services."),
		machines: gauge("machines", "Agents and masters with a session."),
		sessions: gauge("sessions", "Sessions on the LAN manager itself."),
		problems: gauge("file_problems", "Files of which something can not be used."),
		connections: map[Envelope]prometheus.Gauge{
			WebSocket: connections.WithLabelValues(string(WebSocket)),
			SignalR:   connections.WithLabelValues(string(SignalR)),
		},
		bids:        counter("bids_total", "Bids."),
		challenges:  counter("challenges_total", "Bids that were challenged."),
		takenBack:   counter("bids_taken_back_total", "Bids that were not answered in time."),
		accepted:    responses.WithLabelValues("accepted"),
		unreachable: responses.WithLabelValues("unreachable"),
		invalid:     responses.WithLabelValues("invalid"),
		unitsIn:     units.WithLabelValues("in"),
		unitsOut:    units.WithLabelValues("out"),
		dropped:     counter("dropped_peers_total", "Peers that did not read what they were sent."),
		refused:     counter("refused_peers_total", "Peers that were not admitted."),
		reported:    downs.WithLabelValues("reported"),
		replaced:    downs.WithLabelValues("new session"),
		left:        downs.WithLabelValues("session lost"),
		doubted:     downs.WithLabelValues("not confirmed"),
		portCheck: histogram("port_check_seconds", "Time to try the ports of a response.",
			.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 2, 3),
		turn: histogram("core_turn_seconds", "Time of one turn of the core.",
			.00001, .00005, .0001, .0005, .001, .005, .01, .05, .1, 1),
	}
}

// look takes over what is counted already. It runs in the core.
func (m *metrics) look(l *lan) {
	m.needs.Set(float64(len(l.originals.records)))
	m.open.Set(float64(l.needs.Len()))
	m.services.Set(float64(l.services.Len()))
	m.machines.Set(float64(l.machines))
	m.sessions.Set(float64(l.sessions))
	m.problems.Set(float64(len(l.problems)))
}
