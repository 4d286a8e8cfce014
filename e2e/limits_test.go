//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// A module with limits of its tree runs within them, or not at all: then the agent
// leaves its need to others and says what this machine lacks.
func TestLimitsOfATree(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(append(needs(1, "limited"), needs(1, "hello")...)...)
	o := s.observe(manager)
	limited := s.hello()
	limited["modulename"], limited["limits"] = "limited", map[string]any{"memory": "256MiB", "cpu": 0.5, "pids": 100}
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"limited": limited, "hello": s.hello()}})
	var d *pb.NeedDecision
	s.until(func() string {
		d = s.need(a, "limited-0")
		if d.GetDecision() == pb.Decision_DECISION_NOT_CATALOGUED || d.GetDecision() == pb.Decision_DECISION_SERVED_HERE {
			return ""
		}
		return d.String()
	})
	if d.GetDecision() == pb.Decision_DECISION_SERVED_HERE {
		s.within(s.live(a, "limited-0"), map[string]string{"memory.max": "268435456", "cpu.max": "50000 100000", "pids.max": "100"})
		return
	}
	s.served(o, 1) // and it keeps nobody else
	for _, want := range []string{`module "limited" can not run here`, "needs the controller ", "systemd 254: Delegate=yes and DelegateSubgroup=", "or take the limit out of the module"} {
		if !strings.Contains(d.GetDetail(), want) {
			t.Errorf("no %q in: %s", want, d.GetDetail())
		}
	}
	if log := filepath.Join(a.Directory, ".allexmaster", "log", "limited-0.log"); exists(log) {
		t.Errorf("it was started: %s is there", log)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// within makes sure that the cgroup of a process has these limits.
func (s *stage) within(pid int, limits map[string]string) {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	s.must(err)
	_, cgroup, _ := strings.Cut("\n"+string(text), "\n0::")
	cgroup, _, _ = strings.Cut(cgroup, "\n")
	for file, want := range limits {
		got, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", cgroup, file))
		s.must(err)
		if strings.TrimSpace(string(got)) != want {
			s.t.Errorf("%s of process %d: %s, want %s", file, pid, got, want)
		}
	}
}
