//go:build linux

package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// A module says as whom its processes run, within which limits, and which
// executable it must be; a process that can not be so does not run at all.
func TestIdentityAndLimits(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	// Where another user can go: not where the tests are.
	dir, err := os.MkdirTemp("/tmp", "identity")
	s.must(err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.must(os.Chmod(dir, 0o755))
	program, err := os.ReadFile(filepath.Join(s.lab.Bin, "hello"))
	s.must(err)
	s.must(os.WriteFile(filepath.Join(dir, "hello"), program, 0o755))

	right := s.hello()
	right["modulename"], right["directory"], right["command"] = "right", dir, []string{filepath.Join(dir, "hello")}
	right["limits"] = map[string]any{"nofile": 200, "umask": "077", "nice": 3}
	right["sha256"] = fmt.Sprintf("%x", sha256.Sum256(program))
	uid := os.Getuid()
	if uid == 0 {
		right["user"], uid = "nobody", 65534
	}
	wrong := s.hello()
	wrong["modulename"], wrong["sha256"] = "wrong", strings.Repeat("0", 64)
	wrong["backoff"] = map[string]string{"initial": "1m", "max": "1m"}

	manager := s.lan(append(needs(1, "right"), needs(1, "wrong")...)...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address,
		Modules: map[string]lab.Module{"right": right, "wrong": wrong}})
	s.served(o, 1)

	pid := s.running(a)["right-0"].GetPid()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	s.must(err)
	for _, want := range []string{fmt.Sprintf("Uid:\t%d\t", uid), "Umask:\t0077"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("no %q in:\n%s", want, status)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	s.must(err)
	if !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max open files 200 200 files") {
		t.Errorf("limits are:\n%s", limits)
	}
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	s.must(err)
	if os.Getuid() == 0 && !strings.Contains(string(environment), "\x00USER=nobody\x00") {
		t.Errorf("environment of another user: %q", environment)
	}
	if d := s.decided(a, "wrong-0", pb.Decision_DECISION_BACKOFF); !strings.Contains(d.GetDetail(), "its checksum is") {
		t.Errorf("the other executable: %v", d)
	}
}
