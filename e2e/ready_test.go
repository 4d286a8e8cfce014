//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
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

// A port on which some other program accepts is not the process's, whatever
// shows that it is ready: it is never offered to the LAN.
func TestStolenPort(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	stolen := filepath.Join(s.lab.Dir, "stolen")
	idle := lab.Module{ // it never opens its port
		"modulename": "idle", "ports": []string{"http"}, "starttimeout": "4s",
		"command": []string{"sh", "-c", "until test -e " + stolen + "; do sleep 0.05; done; echo up; exec sleep 1000"},
		"ready":   map[string]string{"kind": "log", "pattern": "^up$"},
		"backoff": map[string]string{"initial": "1m", "max": "1m"},
	}
	patient := maps.Clone(idle)
	patient["modulename"], patient["ready"] = "patient", map[string]string{"kind": "port"}
	manager := s.lan(append(needs(1, "patient"), needs(1, "idle")...)...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"idle": idle, "patient": patient}})

	leases := func() []*pb.PortLease {
		answer, err := a.Client.Ports.ListPorts(s.ctx, &pb.ListPortsRequest{})
		s.must(err)
		return answer.GetLeases()
	}
	thieves := map[string]net.Listener{}
	s.until(func() string {
		for _, lease := range leases() {
			if thieves[lease.GetInstance()] != nil || lease.GetPid() == 0 {
				continue
			}
			// The agent holds the port, and Go sets SO_REUSEADDR like the child would.
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(lease.GetPort()))))
			s.must(err)
			t.Cleanup(func() { l.Close() })
			thieves[lease.GetInstance()] = l
		}
		if len(thieves) < 2 {
			return fmt.Sprintf("two leases: %v", leases())
		}
		return ""
	})
	for _, lease := range leases() {
		if lease.GetListener() != pb.PortListener_PORT_LISTENER_STRANGER {
			t.Errorf("a stolen port: %v", lease)
		}
	}
	s.must(os.WriteFile(stolen, nil, 0o600))
	for instance := range thieves {
		if d := s.decided(a, instance, pb.Decision_DECISION_BACKOFF); !strings.Contains(d.GetDetail(), "is that of another program") {
			t.Errorf("%s waits because %q", instance, d.GetDetail())
		}
	}
	if all := o.Changes(); len(all) != 0 {
		t.Errorf("the LAN was told %v", all)
	}
}
