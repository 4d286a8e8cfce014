//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// orphaning leaves processes whose parent ends at once, and becomes a server.
const orphaning = `
for n in 1 2 3 4 5; do (setsid sleep 1 &); done
exec "$HELLO"`

// An agent that is the first process of its container reaps what is left to it, and
// knows how its own children end.
func TestFirstProcess(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, for a pid namespace")
	}
	s := newStage(t)
	manager := s.lan(needs(1, "orphaning")...)
	o := s.observe(manager)
	s.lab.Prepare = func(cmd *exec.Cmd) {
		const contained = `mount --make-rprivate / && mount -t proc proc /proc && exec "$0" "$@"`
		cmd.Args = append([]string{"sh", "-c", contained, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	}
	module := s.hello()
	module["modulename"], module["command"] = "orphaning", []string{"sh", "-c", orphaning}
	module["environment"] = map[string]string{"HELLO": filepath.Join(s.lab.Bin, "hello")}
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"orphaning": module}})
	s.served(o, 1)
	s.alone(a)

	seen := len(o.Changes())
	if status, err := a.Client.Agent.GetStatus(s.ctx, &pb.GetStatusRequest{}); err != nil || status.GetPid() != 1 {
		t.Fatalf("the agent is %v, %v", status, err)
	}
	_, err := a.Client.Processes.SignalProcess(s.ctx, &pb.SignalProcessRequest{Instance: "orphaning-0", Signal: "SIGKILL"})
	s.must(err)
	s.must(o.AwaitAgain(s.ctx, seen, "orphaning-0"))
	if exit := s.process(a, "orphaning-0").GetLastExit(); exit.GetSignal() != "SIGKILL" {
		t.Errorf("it ended with %v", exit)
	}
	s.alone(a)
}

// alone waits until the agent's server is its only child, be it living or dead.
func (s *stage) alone(a *lab.Agent) {
	s.t.Helper()
	s.until(func() string {
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", a.PID()))
		s.must(err)
		var children []string
		for _, list := range lists {
			text, _ := os.ReadFile(list) // the thread may have ended
			children = append(children, strings.Fields(string(text))...)
		}
		if len(children) == 1 {
			return ""
		}
		return fmt.Sprintf("the agent has the children %v", children)
	})
}
