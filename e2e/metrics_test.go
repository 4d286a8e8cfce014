//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// readings are a look at an agent's metrics: its values by name and labels, as in
// the text.
type readings map[string]float64

// scrape reads the metrics at an address as Prometheus does.
func (s *stage) scrape(address string) (readings, map[string]*dto.MetricFamily) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	s.must(err)
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	s.must(err)
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		s.t.Fatal(answer.Status)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	s.must(err)
	all := readings{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			key := name
			if labels != nil {
				key += "{" + strings.Join(labels, ",") + "}"
			}
			all[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all, families
}

// shows waits until an agent's metrics have those values.
func (s *stage) shows(address string, want readings) {
	s.t.Helper()
	s.until(func() string {
		got, _ := s.scrape(address)
		for name, value := range want {
			if got[name] != value {
				return fmt.Sprintf("%s is %v, want %v", name, got[name], value)
			}
		}
		return ""
	})
}

// metricsAddress is one for an agent.
func (s *stage) metricsAddress() string {
	s.t.Helper()
	port, err := s.lab.Ports(1)
	s.must(err)
	return "127.0.0.1:" + strconv.Itoa(port)
}

// A service's life as the metrics tell it: seen, served, killed, replaced,
// failing, held; and what the link does.
func TestMetricsThroughALife(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	quitter := s.hello()
	quitter["modulename"] = "quitter"
	quitter["command"] = []string{"sh", "-c", "exit 3"}
	quitter["backoff"] = map[string]string{"initial": "10m", "max": "10m"}
	manager := s.lan(append(needs(1, "hello"), needs(1, "quitter")...)...)
	o := s.observe(manager)
	address := s.metricsAddress()
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Config: map[string]any{"metricsaddress": address},
		Modules: map[string]lab.Module{"hello": s.hello(), "quitter": quitter}})
	s.served(o, 1)
	s.shows(address, readings{
		"machineagent_link_up":                                 1,
		"machineagent_sessions_total":                          1,
		"machineagent_services_here":                           1,
		"machineagent_needs_open":                              1,
		"machineagent_instances_in_backoff":                    1,
		"machineagent_backoffs_total":                          1,
		`machineagent_processes{state="ready"}`:                1,
		`machineagent_processes_by_place{place="served"}`:      1,
		`machineagent_port_leases{state="listening"}`:          1,
		`machineagent_spawns_total{result="started"}`:          2,
		"machineagent_processes_ready_total":                   1,
		`machineagent_process_ends_total{class="failed"}`:      1,
		`machineagent_bids_ended_total{outcome="accepted"}`:    1,
		"machineagent_challenges_total":                        2,
		`machineagent_stage_seconds{stage="bid"}`:              2,
		`machineagent_stage_seconds{stage="challenge"}`:        2,
		`machineagent_stage_seconds{stage="start"}`:            2,
		`machineagent_stage_seconds{stage="ready"}`:            1,
		`machineagent_stage_seconds{stage="serve"}`:            1,
		"machineagent_need_seconds":                            1,
		"machineagent_replacement_seconds":                     0,
		"machineagent_starts_under_way":                        0,
		`machineagent_process_ends_total{class="killed"}`:      0,
		`machineagent_process_ends_total{class="not_ready"}`:   0,
		`machineagent_bids_ended_total{outcome="unreachable"}`: 0,
	})
	before, _ := s.scrape(address)

	seen := len(o.Changes())
	s.child("hello-0").Kill()
	s.must(o.AwaitAgain(s.ctx, seen, "hello-0"))
	s.shows(address, readings{
		`machineagent_process_ends_total{class="killed"}`:   1,
		"machineagent_down_reports_total":                   1,
		"machineagent_replacement_seconds":                  1,
		"machineagent_need_seconds":                         2,
		`machineagent_bids_ended_total{outcome="accepted"}`: 2,
		`machineagent_spawns_total{result="started"}`:       3,
	})

	_, err := a.Client.Processes.StopProcess(s.ctx, &pb.StopProcessRequest{Instance: "hello-0"})
	s.must(err)
	s.served(o, 0)
	s.shows(address, readings{
		`machineagent_process_ends_total{class="stopped"}`: 1,
		"machineagent_instances_held":                      1,
		"machineagent_services_here":                       0,
		`machineagent_processes{state="ready"}`:            0,
	})

	s.must(manager.Stop(syscall.SIGKILL))
	s.shows(address, readings{"machineagent_link_up": 0, "machineagent_sessions_total": 1})
	after, _ := s.scrape(address)
	if after["machineagent_sessions_failed_total"] == 0 || after["machineagent_link_since_seconds"] <= before["machineagent_link_since_seconds"] {
		t.Errorf("after the loss of the link: %v sessions failed, since %v", after["machineagent_sessions_failed_total"], after["machineagent_link_since_seconds"])
	}
	answer, err := http.Get("http://" + address + "/healthz")
	s.must(err)
	answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("an agent without a LAN manager is not healthy: %s", answer.Status)
	}
}

// What the dashboard asks for is there, with the labels that it asks for.
func TestDashboard(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	address := s.metricsAddress()
	manager := s.lan(needs(1, "hello")...)
	o := s.observe(manager)
	s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Config: map[string]any{"metricsaddress": address}})
	s.served(o, 1)
	_, families := s.scrape(address)

	text, err := os.ReadFile("../docs/grafana/machine-agent.json")
	s.must(err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	s.must(json.Unmarshal(text, &dashboard))
	selected := regexp.MustCompile(`\b((?:machineagent|go|process)_\w+)\{([^}]*)\}`)
	grouped := regexp.MustCompile(`by \(([^)]*)\)`)
	asked := map[string]bool{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			all := selected.FindAllStringSubmatch(target.Expr, -1)
			if len(all) == 0 {
				t.Errorf("%q asks for nothing: %s", p.Title, target.Expr)
			}
			for _, m := range all {
				family := families[m[1]]
				for _, suffix := range []string{"_bucket", "_sum", "_count"} {
					if of := families[strings.TrimSuffix(m[1], suffix)]; family == nil && of.GetType() == dto.MetricType_HISTOGRAM {
						family = of
					}
				}
				if family == nil {
					t.Errorf("%q asks for %s, which no agent has", p.Title, m[1])
					continue
				}
				asked[family.GetName()] = true
				labels := map[string]bool{"instance": true, "le": true}
				for _, l := range family.GetMetric()[0].GetLabel() {
					labels[l.GetName()] = true
				}
				names := strings.Split(regexp.MustCompile(`=~?"[^"]*"`).ReplaceAllString(m[2], ""), ",")
				for _, by := range grouped.FindAllStringSubmatch(target.Expr, -1) {
					names = append(names, by[1])
				}
				for _, name := range names {
					if !labels[name] {
						t.Errorf("%q asks for %s by %q, which has the labels %v", p.Title, m[1], name, labels)
					}
				}
			}
		}
	}
	if len(asked) < 20 {
		t.Errorf("the dashboard asks for %d metrics only: %v", len(asked), asked)
	}
}

// An address that is taken costs the metrics, not the machine.
func TestMetricsAddressTaken(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "hello")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Config: map[string]any{"metricsaddress": manager.Address}})
	s.served(o, 1)
	out, err := a.Ctl(s.ctx, "status")
	s.must(err)
	if !strings.Contains(out, "the metrics are not shown") || !strings.Contains(out, manager.Address) {
		t.Errorf("agentctl status does not say so:\n%s", out)
	}
}
