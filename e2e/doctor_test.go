//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// diagnosis is what agentctl doctor says, and its exit code.
type diagnosis struct {
	Findings []struct{ Grade, About, What, Cure string }
	code     int
}

// doctor examines the machine of an agent, which need not run.
func (s *stage) doctor(name string) (d diagnosis) {
	s.t.Helper()
	cmd := exec.CommandContext(s.ctx, filepath.Join(s.lab.Bin, "agentctl"), "doctor", "-o", "json", "--directory", filepath.Join(s.lab.Dir, name))
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		d.code = exit.ExitCode()
	} else {
		s.must(err)
	}
	s.must(json.Unmarshal(out, &d))
	return d
}

// says tells whether there is a finding of that grade and subject with these words.
func (d diagnosis) says(grade, about string, words ...string) bool {
	for _, f := range d.Findings {
		missing := func(w string) bool { return !strings.Contains(f.What, w) }
		if f.Grade == grade && f.About == about && !slices.ContainsFunc(words, missing) && (grade == "OK" || f.Cure != "") {
			return true
		}
	}
	return false
}

// finds waits for a finding, and checks that the exit code fits what is found.
func (s *stage) finds(name, grade, about string, words ...string) (d diagnosis) {
	s.t.Helper()
	s.until(func() string {
		if d = s.doctor(name); !d.says(grade, about, words...) {
			return fmt.Sprintf("%s %s with %q: %+v", grade, about, words, d)
		}
		return ""
	})
	fails := 0
	for _, f := range d.Findings {
		if f.Grade == "FAIL" {
			fails = 1
		}
	}
	if d.code != fails {
		s.t.Errorf("exit code %d of %+v", d.code, d)
	}
	return d
}

// A healthy machine is called so, and what is broken is named with what to do.
func TestDoctor(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "hello")...)
	o := s.observe(manager)
	const few = 10 // a lab's own ports are between longer ranges
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Ports: few})
	s.served(o, 1)

	s.finds("machine", "OK", "LAN manager", manager.Address, "that of this project")
	d := s.finds("machine", "OK", "serving", "1 process")
	for _, about := range []string{"socket", "agent", "LAN manager", "configuration", "modules", "ports", "limits"} {
		if !d.says("OK", about) {
			t.Errorf("%s is not OK: %+v", about, d)
		}
	}
	for _, about := range []string{"cgroups", "state", "clock"} { // as this machine is
		if !d.says("OK", about) && !d.says("WARN", about) {
			t.Errorf("nothing of %s: %+v", about, d)
		}
	}
	if d.code != 0 {
		t.Errorf("exit code %d: %+v", d.code, d)
	}

	// What an operator has said.
	_, err := a.Client.Agent.Drain(s.ctx, &pb.DrainRequest{})
	s.must(err)
	s.finds("machine", "WARN", "serving", "drained")
	_, err = a.Client.Agent.Resume(s.ctx, &pb.ResumeRequest{})
	s.must(err)
	s.served(o, 1)
	_, err = a.Client.Processes.StopProcess(s.ctx, &pb.StopProcessRequest{Instance: "hello-0"})
	s.must(err)
	s.finds("machine", "WARN", "serving", "hello-0", "held")
	_, err = a.Client.Processes.StartProcess(s.ctx, &pb.StartProcessRequest{Instance: "hello-0"})
	s.must(err)
	s.served(o, 1)

	// No agent, and what it left. Whether there is a LAN manager is found out
	// without being anybody to it.
	seen := len(o.Changes())
	s.must(a.Stop(syscall.SIGKILL))
	d = s.finds("machine", "FAIL", "socket", a.Socket, "left behind", fmt.Sprint(a.PID()))
	if !d.says("OK", "LAN manager", manager.Address) || d.says("OK", "agent") {
		t.Errorf("without an agent: %+v", d)
	}
	a = s.again("machine")
	s.settled(a, 1)
	if more := o.Changes()[seen:]; len(more) != 0 {
		t.Errorf("the table changed: %v", more)
	}

	// A need that nobody has a module for.
	_, err = a.Client.Needs.AddNeed(s.ctx, &pb.AddNeedRequest{Need: &pb.Need{Instance: "quitter", Module: "quitter"}})
	s.must(err)
	s.finds("machine", "WARN", "serving", "quitter", "no module")

	// A module of which a new agent would have nothing, and one that does not live.
	broken := filepath.Join(a.Directory, "modules", "broken.json")
	s.must(os.WriteFile(broken, []byte(`{"modulename": "broken", "command": ["/no/such/program"]}`), 0o644))
	s.finds("machine", "FAIL", "modules", broken+":1:", "/no/such/program does not exist")
	s.must(os.Remove(broken))
	s.must(lab.WriteJSON(filepath.Join(a.Directory, "modules", "quitter.json"), lab.Module{
		"modulename": "quitter", "command": []string{"false"},
		"backoff": map[string]string{"initial": "1ms", "max": "50ms", "reset": "1ms"},
	}))
	s.must(a.Leave())
	a = s.again("machine")
	s.finds("machine", "FAIL", "serving", "quitter", "crash loop")
	_, err = a.Client.Needs.RemoveNeed(s.ctx, &pb.RemoveNeedRequest{Instance: "quitter"})
	s.must(err)
	s.finds("machine", "OK", "serving")
	s.until(func() string {
		if status, err := a.Client.Agent.GetStatus(s.ctx, &pb.GetStatusRequest{}); err != nil || status.GetCrashLoopCount() != 0 || status.GetDirectory() != a.Directory {
			return fmt.Sprintf("no crash loop: %v, %v", status, err)
		}
		return ""
	})

	// No LAN manager, neither for the agent nor for the doctor.
	s.must(manager.Stop(syscall.SIGTERM))
	s.finds("machine", "FAIL", "LAN manager", "NOT CONNECTED", manager.Address)
	s.must(a.Leave())
	s.finds("machine", "FAIL", "LAN manager", "no LAN manager at "+manager.Address, "refused")

	s.lan()
	s.again("machine")
}

// Ranges of which the system gives ports away are told once, by the doctor and the
// agent together.
func TestDoctorOfRanges(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	s.must(err)
	var first, last int
	_, err = fmt.Sscan(string(text), &first, &last)
	s.must(err)
	manager := s.lan()
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Config: map[string]any{
		"portrangesize": 2, "portrangestart": map[string]int{"tcp": last - 1, "http": 1000, "ws": 1100},
	}})
	s.linked(a)
	d := s.finds("machine", "WARN", "ports", fmt.Sprintf("tcp %d-%d overlaps", last-1, last))
	if d.code != 0 || d.says("WARN", "agent", "overlaps") {
		t.Errorf("exit code %d: %+v", d.code, d)
	}
}
