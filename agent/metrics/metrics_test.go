package metrics

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const document = "../../docs/metrics.md"

var update = flag.Bool("update", false, "write the table of "+document+" anew")

// full is a census in which everything is told.
func full() Census {
	return Census{
		Version: "1.2.3", Started: time.Unix(1000, 0), LinkSince: time.Unix(2000, 5e8), Linked: true,
		Needs: 1, Services: 2, Served: 3, Held: 4, Waiting: 5, Looping: 14, Queued: 6, Starting: 7, Bids: 8,
		Processes: map[string]int{"ready": 9, "starting": 0}, Places: map[string]int{"served": 10},
		Leases: map[string]int{"listening": 11}, Connections: 12, Streams: 13,
	}
}

// told is what is written, as a reader of the format understands it.
func told(t *testing.T, f *Figures, c Census) map[string]*dto.MetricFamily {
	t.Helper()
	var text bytes.Buffer
	f.Write(&text, c)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(&text)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// Everything that is told is described, with its type, and the other way round.
func TestEveryMetricIsDescribed(t *testing.T) {
	described := make(map[string]string)
	for _, d := range Descriptions() {
		if described[d.Name] != "" {
			t.Errorf("%s is described twice", d.Name)
		}
		described[d.Name] = d.Type
	}
	got := make(map[string]string)
	for name, family := range told(t, New(), full()) {
		if strings.HasPrefix(name, "machineagent_") {
			got[name] = strings.ToLower(family.GetType().String())
		}
	}
	if diff := cmp.Diff(described, got); diff != "" {
		t.Errorf("described and told differ (-described +told):\n%s", diff)
	}
}

func TestCounters(t *testing.T) {
	f := New()
	for c := range counts {
		for range int(c) + 1 {
			f.Count(c)
		}
	}
	families := told(t, f, full())
	for c := range counts {
		if got := value(families, named[c]); got != float64(c+1) {
			t.Errorf("%s is %v, want %d", named[c], got, c+1)
		}
	}
}

// value is that of a counter or a gauge by its name with its label; -1 if it is
// not told.
func value(families map[string]*dto.MetricFamily, name string) float64 {
	family, label, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
	for _, m := range families[family].GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
		}
		if strings.Join(labels, ",") == label {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return -1
}

func TestGauges(t *testing.T) {
	families := told(t, New(), full())
	for name, want := range map[string]float64{
		`machineagent_info{version="1.2.3"}`:                 1,
		"machineagent_start_time_seconds":                    1000,
		"machineagent_link_up":                               1,
		"machineagent_link_since_seconds":                    2000.5,
		"machineagent_needs_open":                            1,
		"machineagent_services":                              2,
		"machineagent_services_here":                         3,
		"machineagent_instances_held":                        4,
		"machineagent_instances_in_backoff":                  5,
		"machineagent_instances_in_crash_loop":               14,
		"machineagent_instances_queued":                      6,
		"machineagent_starts_under_way":                      7,
		"machineagent_bids_out":                              8,
		`machineagent_processes{state="ready"}`:              9,
		`machineagent_processes{state="starting"}`:           0,
		`machineagent_processes_by_place{place="served"}`:    10,
		`machineagent_port_leases{state="listening"}`:        11,
		"machineagent_api_connections":                       12,
		"machineagent_api_streams":                           13,
		`machineagent_processes{state="no such state"}`:      -1,
		`machineagent_process_ends_total{class="not_ready"}`: 0,
	} {
		if got := value(families, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if families["go_goroutines"] == nil {
		t.Error("nothing is told of Go")
	}
}

func TestHistograms(t *testing.T) {
	f := New()
	f.Took(StageReady, 20*time.Millisecond)
	f.Served(2 * time.Second)
	f.Served(2 * time.Minute)
	f.Replaced(3 * time.Millisecond)
	families := told(t, f, full())
	for name, want := range map[string]struct {
		count uint64
		sum   float64
	}{
		stageSeconds:       {1, .02},
		needSeconds:        {2, 122},
		replacementSeconds: {1, .003},
	} {
		var count uint64
		var sum float64
		for _, m := range families[name].GetMetric() {
			if h := m.GetHistogram(); h.GetSampleCount() > 0 {
				count, sum = h.GetSampleCount(), h.GetSampleSum()
				if name == stageSeconds && m.GetLabel()[0].GetValue() != "ready" {
					t.Errorf("it counts as the stage %s", m.GetLabel()[0].GetValue())
				}
			}
		}
		if count != want.count || sum != want.sum {
			t.Errorf("%s: %d, sum %v, want %v", name, count, sum, want)
		}
	}
}

// A nil one is what an agent has that shows nothing.
func TestNilCountsNothing(t *testing.T) {
	var f *Figures
	f.Count(Bid)
	f.Took(StageBid, time.Second)
	f.Served(time.Second)
	f.Replaced(time.Second)
}

// docs/metrics.md ends with the table of all metrics.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	mark := []byte("-update -->\n")
	at := bytes.Index(text, mark)
	if at < 0 {
		t.Fatalf("%s has no place for the table", document)
	}
	want := string(text[:at+len(mark)]) + "\n" + table()
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(string(text), want); diff != "" {
		t.Errorf("its table is not what the metrics are (-there +want); run the command that it names:\n%s", diff)
	}
}

func table() string {
	var b strings.Builder
	b.WriteString("| metric | type | what it tells |\n|---|---|---|\n")
	for _, d := range Descriptions() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", d.Name, d.Type, d.Text)
	}
	b.WriteString("\nBeside these are those of every Go program (`go_`) and of the process (`process_`), as\n" +
		"the library [VictoriaMetrics/metrics](https://github.com/VictoriaMetrics/metrics) has them.\n")
	return b.String()
}
