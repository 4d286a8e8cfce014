//go:build linux

package e2e

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/client"
	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// A process is outdated if its module is another one than when it was started,
// whichever agent started it and whether one was there when the module changed.
func TestOutdatedAcrossAgents(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	modules := func(timeout string) map[string]lab.Module {
		all := map[string]lab.Module{}
		for _, name := range []string{"changed", "same"} {
			all[name] = s.hello()
			all[name]["modulename"], all[name]["starttimeout"] = name, "30s"
		}
		all["changed"]["starttimeout"] = timeout
		return all
	}
	manager := s.lan(append(needs(2, "changed"), needs(1, "same")...)...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules("30s")})
	s.served(o, 3)
	s.settled(a, 3)
	first := s.singles()
	write := func(name, timeout string) {
		s.must(lab.WriteJSON(filepath.Join(a.Directory, "modules", name+".json"), modules(timeout)[name]))
	}
	killed := func(meanwhile func()) {
		s.must(a.Stop(syscall.SIGKILL))
		meanwhile()
		a = s.again("machine")
		s.settled(a, 3)
	}
	both := []string{"changed-0", "changed-1"}

	killed(func() {
		write("changed", "29s")
		s.indent(filepath.Join(a.Directory, "modules", "same.json"))
	})
	s.outdated(a, both...)
	killed(func() {})
	s.outdated(a, both...)

	s.child("changed-1").Kill()
	s.replaced(a, "changed-1", int32(first["changed-1"].PID))
	s.outdated(a, "changed-0")

	// Back to what the first was started from.
	write("changed", "30s")
	s.ok(a, "reload")
	s.outdated(a, "changed-1")
	write("changed", "28s")
	s.ok(a, "upgrade")
	s.linked(a)
	s.outdated(a, both...)
	killed(func() { s.must(os.Remove(filepath.Join(a.Directory, "modules", "changed.json"))) })
	s.outdated(a)
	write("changed", "27s")
	s.ok(a, "reload")
	s.outdated(a, both...)

	now := s.singles()
	if first["changed-0"] != now["changed-0"] || first["same-0"] != now["same-0"] {
		t.Errorf("these are others now: %v, they were %v", now, first)
	}
	if out := s.ok(a, "reload", "--restart-outdated"); !strings.Contains(out, "changed-0, changed-1") {
		t.Errorf("agentctl reload does not say that they are restarted:\n%s", out)
	}
	for _, instance := range both {
		s.replaced(a, instance, int32(now[instance].PID))
	}
	s.outdated(a)
	if c := s.child("same-0"); c != first["same-0"] {
		t.Errorf("same-0 is %v, it was %v", c, first["same-0"])
	}
}

// outdated makes sure that these are the instances whose processes are older than
// their modules, in every place that tells.
func (s *stage) outdated(a *lab.Agent, want ...string) {
	s.t.Helper()
	var got []string
	all := s.running(a)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name].GetOutdated() {
			got = append(got, name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("what is outdated (-want +got):\n%s", diff)
	}
	answer, err := a.Client.Agent.ListModules(s.ctx, &pb.ListModulesRequest{})
	s.must(err)
	sum := 0
	for _, m := range answer.GetModules() {
		sum += int(m.GetOutdated())
	}
	if sum != len(want) {
		s.t.Errorf("the modules have %d outdated processes, want %d: %v", sum, len(want), answer)
	}
}

// indent changes the white space of a JSON file and nothing else.
func (s *stage) indent(path string) {
	s.t.Helper()
	text, err := os.ReadFile(path)
	s.must(err)
	s.must(os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "\n", "\n\t")), 0o644))
}

// Nobody restarts what nothing would replace.
func TestRestartNeedsAReplacement(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager, _, a := s.serving(2)
	first := s.singles()
	file := filepath.Join(a.Directory, "modules", "hello.json")
	refused := func(reason string) {
		t.Helper()
		_, err := a.Client.Processes.RestartProcess(s.ctx, &pb.RestartProcessRequest{Instance: "hello-0"})
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Reason != reason {
			t.Errorf("it was restarted, or refused with %v; want %s", err, reason)
		}
	}

	s.must(os.Remove(file))
	s.ok(a, "reload")
	refused("NOT_CATALOGUED")
	changed := s.hello()
	changed["starttimeout"] = "29s"
	s.must(lab.WriteJSON(file, changed))
	s.must(manager.Stop(syscall.SIGKILL))
	s.until(func() string {
		if s.link(a).GetConnected() {
			return "the LAN manager is there"
		}
		return ""
	})
	refused("NO_LAN_MANAGER")
	if out := s.ok(a, "reload", "--restart-outdated"); strings.Contains(out, "Restarting") || !strings.Contains(out, "hello-0, hello-1") {
		t.Errorf("agentctl reload says:\n%s", out)
	}
	if now := s.singles(); !maps.Equal(now, first) {
		t.Errorf("these run now: %v, they were %v", now, first)
	}
}
