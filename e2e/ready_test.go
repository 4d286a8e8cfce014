//go:build linux

package e2e

import (
	"strings"
	"testing"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// readyBy is a module of hello that is ready by something else than its port.
func (s *stage) readyBy(name string, ready map[string]string) lab.Module {
	module := s.hello()
	module["modulename"], module["ready"] = name, ready
	return module
}

// A process is offered to the LAN when it is ready in the way of its module, and
// stopped with a reason that says what was waited for when it never is.
func TestReadyKinds(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	good := map[string]map[string]string{
		"page":  {"kind": "http", "path": "/"},
		"line":  {"kind": "log", "pattern": "^hello from "},
		"while": {"kind": "delay", "delay": "100ms"},
		"port":  {"kind": "port", "port": "http"},
	}
	bad := map[string]struct {
		ready  map[string]string
		reason string
	}{
		"nopage": {map[string]string{"kind": "http", "path": "/none"}, "/none is not answered with success"},
		"noline": {map[string]string{"kind": "log", "pattern": "^bye$"}, `no line of its log matches "^bye$"`},
	}
	modules := map[string]lab.Module{}
	var wanted []lab.Need
	for name, ready := range good {
		modules[name] = s.readyBy(name, ready)
		wanted = append(wanted, needs(1, name)...)
	}
	for name, c := range bad {
		modules[name] = s.readyBy(name, c.ready)
		modules[name]["starttimeout"] = "2s" // which it takes in any case
		modules[name]["backoff"] = map[string]string{"initial": "1m", "max": "1m"}
		wanted = append(wanted, needs(1, name)...)
	}
	// Somebody who answers, but not with success.
	modules["nopage"]["command"] = []string{"python3", "-m", "http.server", "${httpport}", "--directory", s.lab.Dir}
	manager := s.lan(wanted...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules})
	s.served(o, len(good))
	for name, c := range bad {
		d := s.decided(a, name+"-0", pb.Decision_DECISION_BACKOFF)
		if !strings.Contains(d.GetDetail(), c.reason) || !strings.Contains(d.GetDetail(), "not ready within 2s") {
			t.Errorf("%s waits because %q, want %q", name, d.GetDetail(), c.reason)
		}
	}

	// A replacement waits for a line of its own, not for that of the one before.
	first := s.child("line-0")
	first.Kill()
	s.until(func() string {
		if p := s.running(a)["line-0"]; p.GetState() != pb.ProcessState_PROCESS_STATE_READY || int(p.GetPid()) == first.PID {
			return "no replacement is ready"
		}
		return ""
	})
}
