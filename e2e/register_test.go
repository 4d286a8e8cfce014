//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// registrants is the module of the test binary's role.
func registrants(s *stage) lab.Module {
	module := s.role("registrant", nil)
	module["ready"] = map[string]string{"kind": "register"}
	module["backoff"] = map[string]string{"initial": "0s", "reset": "1h"} // every end of it counts
	return module
}

// tell sends a signal to an instance.
func (s *stage) tell(a *lab.Agent, instance, signal string) {
	s.t.Helper()
	_, err := a.Client.Processes.SignalProcess(s.ctx, &pb.SignalProcessRequest{Instance: instance, Signal: signal})
	s.must(err)
}

// listening waits until the process of an instance accepts on its HTTP port.
func (s *stage) listening(a *lab.Agent, instance string) *pb.Process {
	s.t.Helper()
	var p *pb.Process
	s.until(func() string {
		p = s.running(a)[instance]
		if p == nil {
			return "there is no process of " + instance
		}
		return ""
	})
	s.accepts(int(p.GetPorts().GetHttp()))
	return s.process(a, instance)
}

// accepts waits until somebody listens on a port.
func (s *stage) accepts(port int) {
	s.t.Helper()
	s.until(func() string {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return err.Error()
		}
		c.Close()
		return ""
	})
}

// A child that is ready when it says so is not served before it has said so,
// although its port is open; and it can say that it is not any more.
func TestRegister(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "registrant")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"registrant": registrants(s)}})

	p := s.listening(a, "registrant-0")
	if p.GetState() != pb.ProcessState_PROCESS_STATE_STARTING || p.GetStatusText() != "" {
		t.Errorf("before it registered: %v", p)
	}
	s.decided(a, "registrant-0", pb.Decision_DECISION_STARTING)
	// That a stranger says so in its place is refused.
	stranger := s.outsider(0, "sleep", "600")
	out, err := a.Ctl(s.ctx, "register", "registrant-0", "--pid", strconv.Itoa(stranger.Process.Pid))
	if err == nil {
		t.Errorf("a stranger is registered in its place: %s", out)
	}
	if now := s.process(a, "registrant-0"); now.GetPid() != p.GetPid() || now.GetState() != pb.ProcessState_PROCESS_STATE_STARTING {
		t.Errorf("after a stranger registered: %v", now)
	}
	told := time.Now()
	s.tell(a, "registrant-0", "SIGUSR1")
	s.served(o, 1)
	if _, ups := changes(o, 0, "registrant-0"); len(ups) != 1 || ups[0].At.Before(told) {
		t.Errorf("it was told to register at %s and was up at %v", told, ups)
	}
	if p := s.process(a, "registrant-0"); p.GetState() != pb.ProcessState_PROCESS_STATE_READY || p.GetStatusText() != registrantText {
		t.Errorf("after it registered: %v", p)
	}
	// The same call again: the same answer, and nothing happens.
	seen, own := len(o.Changes()), s.child("registrant-0")
	s.tell(a, "registrant-0", "SIGUSR1")
	s.until(func() string {
		text, err := os.ReadFile(p.GetLogFile())
		s.must(err)
		if strings.Count(string(text), "<nil>") == 2 {
			return ""
		}
		return "the answers in:\n" + string(text)
	})
	if more := o.Changes()[seen:]; len(more) != 0 || s.child("registrant-0") != own {
		t.Errorf("the second registration changed %v", more)
	}

	s.tell(a, "registrant-0", "SIGUSR2")
	s.served(o, 0)
	s.until(func() string {
		if own.Alive() {
			return "the process that reported itself down still runs"
		}
		return ""
	})
	p = s.listening(a, "registrant-0") // its replacement
	if !strings.Contains(p.GetLastReason(), "tired") || p.GetFailures() != 1 {
		t.Errorf("after it reported itself down: %v", p)
	}
	s.tell(a, "registrant-0", "SIGUSR1")
	s.served(o, 1)
}

// outsider starts a program that no agent knows.
func (s *stage) outsider(port int, command ...string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.CommandContext(s.ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("HTTP_PORT=%d", port))
	s.must(cmd.Start())
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have been
		_ = cmd.Wait()
	})
	return cmd
}

// An outside process is watched: it is on the list until it is killed.
func TestOutsideSleep(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	a := s.agent("machine", lab.AgentFiles{LANManager: s.lan().Address})
	sleep := s.outsider(0, "sleep", "600")
	out, err := a.Ctl(s.ctx, "register", "Sleeper", "--pid", strconv.Itoa(sleep.Process.Pid))
	if err != nil {
		t.Fatal(out)
	}
	p := s.process(a, "Sleeper")
	if p.GetOrigin() != pb.ProcessOrigin_PROCESS_ORIGIN_OUTSIDE || p.GetState() != pb.ProcessState_PROCESS_STATE_READY || int(p.GetPid()) != sleep.Process.Pid {
		t.Errorf("registered: %v", p)
	}

	// The next agent watches it too, and leaves it alone when it shuts down.
	s.must(a.Leave())
	a = s.again("machine")
	if p := s.process(a, "Sleeper"); p.GetOrigin() != pb.ProcessOrigin_PROCESS_ORIGIN_OUTSIDE || int(p.GetPid()) != sleep.Process.Pid {
		t.Errorf("after a restart of the agent: %v", p)
	}
	s.must(sleep.Process.Kill())
	_ = sleep.Wait() // how it ended, which is what we did
	s.until(func() string {
		if p := s.process(a, "Sleeper"); p.GetPid() != 0 || p.GetState() != pb.ProcessState_PROCESS_STATE_ENDED {
			return "it is still on the list: " + p.String()
		}
		return ""
	})
}

// An outside process was told of no watchdog, and no agent asks it for one.
func TestOutsideHasNoWatchdog(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	modules := s.notifiers(map[string]string{"mute": "READY=1"})
	modules["mute"]["watchdog"] = "300ms"
	manager := s.lan(needs(1, "mute")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules})
	s.served(o, 1)
	sleep := s.outsider(0, "sleep", "600")
	s.ok(a, "register", "Legacy", "--module", "mute", "--pid", strconv.Itoa(sleep.Process.Pid))
	s.must(a.Stop(syscall.SIGKILL))
	a = s.again("machine")
	child := s.process(a, "mute-0").GetPid()
	for range 3 { // by then it would have been asked, too
		child = s.replaced(a, "mute-0", child).GetPid()
	}
	if p := s.process(a, "Legacy"); int(p.GetPid()) != sleep.Process.Pid || p.GetState() != pb.ProcessState_PROCESS_STATE_READY {
		t.Errorf("it is %v", p)
	}
}

// An outside process that listens serves the open need of its name, which no
// module of this machine could serve, until it ends.
func TestOutsideServes(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(lab.Need{InstanceName: "Legacy", ModuleName: "allex_legacy"})
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address})
	s.decided(a, "Legacy", pb.Decision_DECISION_NOT_CATALOGUED)
	port, err := s.lab.Ports(2)
	s.must(err)
	legacy := s.outsider(port, filepath.Join(s.lab.Bin, "hello"))
	s.accepts(port)
	register := &pb.RegisterProcessRequest{Instance: "Legacy", Pid: int32(legacy.Process.Pid), Ports: &pb.Ports{Http: int32(port + 1)}}
	if answer, err := a.Client.Processes.RegisterProcess(s.ctx, register); err == nil || !strings.Contains(err.Error(), strconv.Itoa(port+1)) {
		t.Errorf("a port on which it does not listen was taken for good: %v, %v", answer, err)
	}
	register.Ports.Http = int32(port)
	_, err = a.Client.Processes.RegisterProcess(s.ctx, register)
	s.must(err)
	s.served(o, 1)
	if got, want := o.Services()["Legacy"].Ports, (table.Ports{HTTP: port}); got != want {
		t.Errorf("the service has %+v, want %+v", got, want)
	}
	out, err := a.Ctl(s.ctx, "ports")
	s.must(err)
	if !strings.Contains(out, strconv.Itoa(port)) || !strings.Contains(out, "OUTSIDE") {
		t.Errorf("agentctl ports:\n%s", out)
	}

	s.must(legacy.Process.Kill())
	s.served(o, 0)
	s.decided(a, "Legacy", pb.Decision_DECISION_NOT_CATALOGUED)
}
