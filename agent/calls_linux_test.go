package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/allexgo/machine-agent/agent/port"
)

// TestStatusIsOfNow: what the configuration allows and is not good is looked at
// anew, and crash loops are named.
func TestStatusIsOfNow(t *testing.T) {
	l := loopWithStore(t)
	l.PortRanges[0] = port.Range{Protocol: port.TCP, Start: 1, Size: 65535}
	l.Warnings = []string{"it has no cgroups"}
	for n := range loopsNamed + 2 {
		l.get(fmt.Sprintf("loop-%02d", n)).backoff.failures = loopFrom
	}
	l.get("well").backoff.failures = loopFrom - 1
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		(<-l.inbox)(l)
	}()
	s, err := l.Status(t.Context())
	<-answered
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Warnings) < 2 || !strings.HasPrefix(s.Warnings[0], "the range tcp 1-65535 overlaps") || !slices.Contains(s.Warnings, "it has no cgroups") {
		t.Errorf("%q", s.Warnings)
	}
	if s.Looping != loopsNamed+2 || len(s.CrashLoops) != loopsNamed || s.CrashLoops[0] != "loop-00" || s.CrashLoops[9] != "loop-09" {
		t.Errorf("%d: %q", s.Looping, s.CrashLoops)
	}
	if l.Warnings[0] != "it has no cgroups" || len(l.Warnings) != 1 {
		t.Errorf("the agent's own were changed: %q", l.Warnings)
	}
}
