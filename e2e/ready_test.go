//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
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
		"mute":   {map[string]string{"kind": "register"}, "it did not call RegisterProcess"},
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

// A process without ports is offered once it has registered one, and not before.
func TestNothingToOffer(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	module := lab.Module{"modulename": "mute", "command": []string{"sleep", "1000"}, "ports": []string{}, "ready": map[string]string{"kind": "delay", "delay": "1ms"}}
	manager := s.lan(needs(1, "mute")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"mute": module}})
	s.until(func() string {
		d := s.need(a, "mute-0")
		if !strings.Contains(d.GetDetail(), "has registered no port") {
			return d.String()
		}
		return ""
	})
	child := s.child("mute-0")
	if all := o.Changes(); len(all) != 0 || s.child("mute-0") != child {
		t.Errorf("the LAN was told %v, and the process is %v, it was %v", all, s.child("mute-0"), child)
	}
}

// What a process that is not ready is waited for is told while it is.
func TestWhatIsAwaited(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	modules := map[string]lab.Module{}
	for name, ready := range map[string]map[string]string{
		"http": {"kind": "http", "port": "tcp", "path": "/up"}, "register": {"kind": "register"},
	} {
		module := s.hello()
		module["modulename"], module["ready"] = name, ready
		module["ports"] = []string{"tcp", "http"} // nobody listens on the first
		modules[name] = module
	}
	manager := s.lan(slices.Concat(needs(1, "http"), needs(1, "register"))...)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules})
	for instance, why := range map[string]string{"http-0": "/up is not answered with success (", "register-0": "it did not call RegisterProcess"} {
		s.until(func() string {
			if d := s.need(a, instance); d.GetDecision() != pb.Decision_DECISION_STARTING || !strings.Contains(d.GetDetail(), why) {
				return fmt.Sprintf("%v, want %q", d, why)
			}
			return ""
		})
	}
}

// A port on which some other program listens is not the process's, whatever shows
// that it is ready: it is never offered to the LAN. The try ends at once, is nobody's
// failure, and the next one is made on another port.
func TestStolenPort(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	begin := filepath.Join(s.lab.Dir, "go")
	module := func(name, mode string, ready map[string]string) lab.Module {
		return lab.Module{ // it opens its port when it is told to
			"modulename": name, "ports": []string{"http"}, "portmode": mode, "ready": ready,
			"command": []string{"sh", "-c", "until test -e " + begin + "; do sleep 0.05; done; echo up; exec " + filepath.Join(s.lab.Bin, "hello")},
			"backoff": map[string]string{"initial": "1m", "max": "1m"},
		}
	}
	modules := map[string]lab.Module{
		"patient":  module("patient", "reserved", map[string]string{"kind": "port"}),
		"idle":     module("idle", "reserved", map[string]string{"kind": "log", "pattern": "^up$"}),
		"released": module("released", "released", map[string]string{"kind": "port"}),
	}
	manager := s.lan(slices.Concat(needs(1, "patient"), needs(1, "idle"), needs(1, "released"))...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules})

	thieves := map[string]int32{} // the port that was stolen from an instance
	s.until(func() string {
		for _, lease := range s.leases(a) {
			if thieves[lease.GetInstance()] != 0 || lease.GetPid() == 0 {
				continue
			}
			// The agent holds the port, and Go sets SO_REUSEADDR like the child would.
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(lease.GetPort()))))
			s.must(err)
			t.Cleanup(func() { l.Close() })
			thieves[lease.GetInstance()] = lease.GetPort()
		}
		if len(thieves) < len(modules) {
			return fmt.Sprintf("%d leases: %v", len(modules), s.leases(a))
		}
		return ""
	})
	for instance, port := range thieves {
		s.until(func() string {
			if p := s.process(a, instance); p.GetPorts().GetHttp() == port || p.GetPid() == 0 {
				return "another process on another port: " + p.String()
			}
			return ""
		})
		if p := s.process(a, instance); p.GetFailures() != 0 || !strings.Contains(p.GetLastReason(), "is that of another program: pid "+strconv.Itoa(os.Getpid())) {
			t.Errorf("a stolen port counts as a failure, or is not told: %v", p)
		}
	}
	for _, lease := range s.leases(a) {
		if stolen := thieves[lease.GetInstance()] == lease.GetPort(); stolen != (lease.GetState() == pb.PortState_PORT_STATE_QUARANTINED) {
			t.Errorf("stolen is %v: %v", stolen, lease)
		}
	}
	if all := o.Changes(); len(all) != 0 {
		t.Errorf("the LAN was told %v", all)
	}
	s.must(os.WriteFile(begin, nil, 0o600))
	s.served(o, len(modules))
	for instance, service := range o.Services() {
		if int32(service.Ports.HTTP) == thieves[instance] {
			t.Errorf("%s is offered on the stolen port %d", instance, service.Ports.HTTP)
		}
	}
}

// leases are what an agent says of its ports.
func (s *stage) leases(a *lab.Agent) []*pb.PortLease {
	s.t.Helper()
	answer, err := a.Client.Ports.ListPorts(s.ctx, &pb.ListPortsRequest{})
	s.must(err)
	return answer.GetLeases()
}

// A process that listens elsewhere than it was told, or where nobody meets it, or
// not at all, is seen while it starts, and the reason of its end says so.
func TestListensElsewhere(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	hello := filepath.Join(s.lab.Bin, "hello")
	first, err := s.lab.Ports(2)
	s.must(err)
	python := fmt.Sprintf("exec python3 -u -m http.server --bind 127.0.0.1 --directory %s $HTTP_PORT", s.lab.Dir)
	modules, wanted := map[string]lab.Module{}, []lab.Need(nil)
	says := map[string]string{
		"other":    fmt.Sprintf("it listens on [::]:%d instead of port ", first),
		"never":    "it listens on no port; have it listen on port ",
		"loopback": "where nobody who connects to 127.0.0.2 meets it",
	}
	for name, script := range map[string]string{
		"other": fmt.Sprintf("HTTP_PORT=%d exec %s", first, hello), "never": "exec sleep 1000", "loopback": python,
	} {
		modules[name] = lab.Module{
			"modulename": name, "command": []string{"sh", "-c", script}, "ports": []string{"http"},
			"starttimeout": "8s", "backoff": map[string]string{"initial": "1m", "max": "1m"},
		}
		wanted = append(wanted, needs(1, name)...)
	}
	// This one counts as ready all the same, and is found out by the LAN manager.
	modules["offered"] = maps.Clone(modules["loopback"])
	modules["offered"]["modulename"], modules["offered"]["ready"] = "offered", map[string]string{"kind": "log", "pattern": "^Serving HTTP"}
	wanted = append(wanted, needs(1, "offered")...)
	a := s.agent("machine", lab.AgentFiles{LANManager: s.lan(wanted...).Address, Modules: modules,
		Config: map[string]any{"address": "127.0.0.2"}})
	for name, want := range says {
		s.until(func() string {
			d := s.need(a, name+"-0")
			if d.GetDecision() != pb.Decision_DECISION_STARTING || !strings.Contains(d.GetDetail(), want) {
				return fmt.Sprintf("needs says %q of it: %v", want, d)
			}
			out, err := a.Ctl(s.ctx, "ports")
			s.must(err)
			if !strings.Contains(out, want) {
				return fmt.Sprintf("ports says %q of it:\n%s", want, out)
			}
			return ""
		})
	}
	for name, want := range says {
		if d := s.decided(a, name+"-0", pb.Decision_DECISION_BACKOFF); !strings.Contains(d.GetDetail(), want) {
			t.Errorf("%s waits because %q, want %q", name, d.GetDetail(), want)
		}
	}
	refused := s.decided(a, "offered-0", pb.Decision_DECISION_BACKOFF).GetDetail()
	for _, want := range []string{"NO_PORTS_REACHABLE", "the process listens on 127.0.0.1:", "it must listen on 127.0.0.2, ports ["} {
		if !strings.Contains(refused, want) {
			t.Errorf("offered waits because %q, want %q", refused, want)
		}
	}
}

// A need that asks for a port that another program has is told by whom it is held.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	defer l.Close()
	wanted := needs(1, "hello")
	wanted[0].HTTPPort = l.Addr().(*net.TCPAddr).Port
	manager := s.lan(wanted...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address})
	d := s.decided(a, "hello-0", pb.Decision_DECISION_PORT_TAKEN)
	if want := fmt.Sprintf("(it is pid %d (", os.Getpid()); !strings.Contains(d.GetDetail(), want) {
		t.Errorf("it is taken because %q, want %q", d.GetDetail(), want)
	}
	l.Close()
	s.served(o, 1)
}
