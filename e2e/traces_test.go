//go:build linux

package e2e

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/allexgo/machine-agent/e2e/lab"
)

// collected are the spans that a collector of OTLP over HTTP has been sent.
type collected struct {
	mu    sync.Mutex
	spans []*otlp.Span
	about map[string]string // the attributes of who sent them
}

func (c *collected) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	var sent collector.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(text, &sent) != nil {
		http.Error(w, "this is no trace", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range sent.GetResourceSpans() {
		for _, a := range resource.GetResource().GetAttributes() {
			c.about[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// journey is the whole of an instance's trace, and what lies below it by the order
// of its beginning; nil if it has not come.
func (c *collected) journey(instance string) (whole *otlp.Span, below []*otlp.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		for _, a := range s.GetAttributes() {
			if a.GetKey() == "machineagent.instance" && a.GetValue().GetStringValue() == instance {
				whole = s
			}
		}
	}
	for _, s := range c.spans {
		if whole != nil && string(s.GetTraceId()) == string(whole.GetTraceId()) && s != whole {
			below = append(below, s)
		}
	}
	return whole, below
}

// A need leaves one trace, in which each stage is a span below that of the whole;
// the process knows it. A first start that fails is in it.
func TestTraces(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c := &collected{about: map[string]string{}}
	server := httptest.NewServer(c)
	defer server.Close()

	manager := s.lan(needs(1, "hello")...)
	o := s.observe(manager)
	parent := filepath.Join(s.lab.Dir, "parent")
	module := s.hello()
	module["command"] = []string{"sh", "-c", `test -e "$PARENT" || { echo "$TRACEPARENT" >"$PARENT"; exit 3; }; exec "$HELLO"`}
	module["environment"] = map[string]string{"PARENT": parent, "HELLO": filepath.Join(s.lab.Bin, "hello")}
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"hello": module},
		Config: map[string]any{"tracing": map[string]string{"endpoint": server.URL}}})
	s.served(o, 1)
	var whole *otlp.Span
	var below []*otlp.Span
	s.until(func() string {
		if whole, below = c.journey("hello-0"); whole == nil {
			return "a trace"
		}
		return ""
	})

	var names []string
	last := whole.GetStartTimeUnixNano()
	for _, span := range below {
		name := span.GetName()
		if span.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR {
			name += ": " + span.GetStatus().GetMessage()
		}
		names = append(names, name)
		if string(span.GetParentSpanId()) != string(whole.GetSpanId()) {
			t.Errorf("%s does not lie below the whole", name)
		}
		if span.GetStartTimeUnixNano() != last || span.GetEndTimeUnixNano() < last {
			t.Errorf("%s does not begin where the stage before ends", name)
		}
		last = span.GetEndTimeUnixNano()
	}
	if got, want := strings.Join(names, ", "), "bid, challenge, start, ready: it ended by itself, bid, challenge, start, ready, serve"; got != want {
		t.Errorf("stages: %s\nwant:   %s", got, want)
	}
	if len(whole.GetParentSpanId()) != 0 || whole.GetName() != "need" || whole.GetEndTimeUnixNano() != last {
		t.Errorf("the whole: %v", whole)
	}
	text, err := os.ReadFile(parent)
	s.must(err)
	if got, want := strings.TrimSpace(string(text)), fmt.Sprintf("00-%s-%s-01", hex.EncodeToString(whole.GetTraceId()), hex.EncodeToString(whole.GetSpanId())); got != want {
		t.Errorf("TRACEPARENT is %q, want %q", got, want)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.about["service.name"] != "machineagent" || c.about["host.name"] != a.Name || c.about["service.instance.id"] == "" {
		t.Errorf("who sends: %v", c.about)
	}
}
