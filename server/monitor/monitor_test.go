package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/allexgo/machine-agent/agent/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answering is an agent that answers, or whose loop is stuck.
type answering bool

func (a answering) Census(ctx context.Context) (metrics.Census, error) {
	if !a {
		<-ctx.Done()
		return metrics.Census{}, ctx.Err()
	}
	return metrics.Census{Version: "test", Linked: true, Served: 3}, nil
}

type callers struct{}

func (callers) Connections() int { return 5 }
func (callers) Streams() int     { return 2 }

// shown is the base of the URLs of a monitor that serves until the test ends.
func shown(t *testing.T, a Agent) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	m := New(Config{Agent: a, API: callers{}, Figures: metrics.New(), Logger: hclog.NewNullLogger()})
	go func() { served <- m.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + l.Addr().String()
}

func get(t *testing.T, method, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

func TestMetrics(t *testing.T) {
	answer, text := get(t, http.MethodGet, shown(t, answering(true))+"/metrics")
	if got := answer.Header.Get("Content-Type"); answer.StatusCode != http.StatusOK || !strings.HasPrefix(got, "text/plain; version=0.0.4") {
		t.Errorf("%s, %s", answer.Status, got)
	}
	for _, line := range []string{
		`machineagent_info{version="test"} 1`, "machineagent_services_here 3", "machineagent_api_connections 5",
		"machineagent_api_streams 2", "machineagent_bids_total 0", "# TYPE machineagent_bids_total counter",
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("there is no line %q in:\n%s", line, text)
		}
	}
}

func TestHealth(t *testing.T) {
	answer, text := get(t, http.MethodGet, shown(t, answering(true))+"/healthz")
	if answer.StatusCode != http.StatusOK || text != `{"status":"ok","linked":true,"services":3}`+"\n" {
		t.Errorf("%s: %s", answer.Status, text)
	}
}

// A loop that does not answer is what a watcher has to hear of.
func TestStuck(t *testing.T) {
	base := shown(t, answering(false))
	for _, path := range []string{"/metrics", "/healthz"} {
		answer, text := get(t, http.MethodGet, base+path)
		if answer.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "the agent does not answer") {
			t.Errorf("%s: %s: %s", path, answer.Status, text)
		}
	}
}

func TestNothingElse(t *testing.T) {
	base := shown(t, answering(true))
	for request, want := range map[string]int{
		"HEAD /metrics": http.StatusOK, "POST /metrics": http.StatusMethodNotAllowed, "GET /": http.StatusNotFound, "GET /debug/pprof/": http.StatusNotFound,
	} {
		method, path, _ := strings.Cut(request, " ")
		if answer, _ := get(t, method, base+path); answer.StatusCode != want {
			t.Errorf("%s: %s, want %d", request, answer.Status, want)
		}
	}
}

// Whoever connects and says nothing keeps out nobody for long.
func TestSilentCallers(t *testing.T) {
	base := shown(t, answering(true))
	for range mostConnected {
		c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if answer, _ := get(t, http.MethodGet, base+"/healthz"); answer.StatusCode != http.StatusOK {
		t.Error(answer.Status)
	}
}

// A listener that fails is an error, one that was told to end is none.
func TestServeFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	m := New(Config{Agent: answering(true), API: callers{}, Figures: metrics.New(), Logger: hclog.NewNullLogger()})
	within, stop := context.WithTimeoutCause(t.Context(), time.Minute, fmt.Errorf("it still serves"))
	defer stop()
	if err := m.Serve(within, l); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
