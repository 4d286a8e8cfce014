//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// daemonRole starts the server that it is, says which process that is, and ends, as
// daemons do that go to the background. The server says what is posted to it.
func daemonRole() error {
	if len(os.Args) == 1 {
		server := exec.Command(os.Args[0], "serve")
		server.Stdout, server.Stderr = os.Stdout, os.Stderr
		if err := server.Start(); err != nil {
			return err
		}
		return notify(fmt.Sprintf("MAINPID=%d", server.Process.Pid))
	}
	l, err := net.Listen("tcp", ":"+os.Getenv("HTTP_PORT"))
	if err != nil {
		return err
	}
	if err := notify(fmt.Sprintf("READY=1\nSTATUS=%d", os.Getpid())); err != nil {
		return err
	}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text := r.FormValue("say"); text != "" {
			if err := notify(text); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}
	}))
}

// daemon waits until the server is the main process, and alone.
func (s *stage) daemon(a *lab.Agent) (main *pb.Process) {
	s.t.Helper()
	s.until(func() string {
		main = s.process(a, "daemon-0")
		all := s.lab.Children()["daemon-0"]
		if main.GetState() != pb.ProcessState_PROCESS_STATE_READY || main.GetStatusText() != fmt.Sprint(main.GetPid()) || len(all) != 1 || all[0].PID != int(main.GetPid()) {
			return fmt.Sprintf("the agent has %v, there are %v", main, all)
		}
		return ""
	})
	return main
}

// A process that goes to the background is watched where it has gone to, also by the
// agents after the one that saw it go. Whom it has no say about can not be in its
// place.
func TestDaemon(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	modules := s.notifiers(map[string]string{"daemon": ""})
	self, err := os.Executable()
	s.must(err)
	modules["daemon"]["command"], modules["daemon"]["environment"] = []string{self}, map[string]string{roleVariable: "daemon"}
	manager := s.lan(needs(1, "daemon")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules})
	status, err := a.Client.Agent.GetStatus(s.ctx, &pb.GetStatusRequest{})
	s.must(err)
	if !status.GetCgroups() {
		s.until(func() string {
			if !strings.Contains(a.Program.Output(), "has no cgroup of its own") {
				return "nothing is logged of a process that can not be the main one"
			}
			return ""
		})
		return
	}
	s.served(o, 1)
	first := s.daemon(a)

	for range 2 {
		s.say(a, "daemon-0", fmt.Sprintf("MAINPID=%d", os.Getpid()))
		s.say(a, "daemon-0", "STATUS=it lies")
		s.status(a, "daemon-0", "it lies")
		s.say(a, "daemon-0", fmt.Sprintf("STATUS=%d", first.GetPid()))
		s.status(a, "daemon-0", fmt.Sprint(first.GetPid()))
	}
	if n := strings.Count(a.Program.Output(), "which is not taken up"); n != 1 || s.daemon(a).GetPid() != first.GetPid() {
		t.Errorf("two lies are told %d times:\n%s", n, a.Program.Output())
	}

	s.kill(first)
	if p := s.replaced(a, "daemon-0", first.GetPid()); p.GetLastExit().GetSignal() != "SIGKILL" && !p.GetLastExit().GetUnknown() {
		t.Errorf("it ended with %v", p.GetLastExit())
	}
	second := s.daemon(a)

	seen := len(o.Changes())
	again := func(how func() error) {
		t.Helper()
		s.must(how())
		s.linked(a)
		if p := s.process(a, "daemon-0"); p.GetPid() != second.GetPid() || p.GetState() != pb.ProcessState_PROCESS_STATE_READY {
			t.Fatalf("the agent has %v, it was %v", p, second)
		}
		s.say(a, "daemon-0", "STATUS=still here")
		s.status(a, "daemon-0", "still here")
		s.say(a, "daemon-0", fmt.Sprintf("STATUS=%d", second.GetPid()))
		s.status(a, "daemon-0", fmt.Sprint(second.GetPid()))
	}
	again(func() error { _, err := a.Ctl(s.ctx, "upgrade"); return err }) // the leader is still our child
	for range 2 {                                                         // then nobody's
		again(func() error {
			err := a.Stop(syscall.SIGKILL)
			a = s.again("machine")
			return err
		})
	}
	if more := o.Changes()[seen:]; len(more) != 0 {
		t.Errorf("the LAN noticed: %v", more)
	}
	s.kill(second)
	s.replaced(a, "daemon-0", second.GetPid())
	third := s.daemon(a)

	child := s.child("daemon-0")
	s.must(a.Leave())
	s.kill(third)
	s.gone(child)
	a = s.again("machine")
	if p := s.replaced(a, "daemon-0", third.GetPid()); !p.GetLastExit().GetUnknown() {
		t.Errorf("it ended with %v while nobody was there", p.GetLastExit())
	}
	fourth := s.daemon(a)

	// It obeys, and nothing of it stays.
	out, err := a.Ctl(s.ctx, "stop", "daemon-0")
	s.must(errors.Join(err, context.Cause(s.ctx)))
	s.until(func() string {
		p := s.process(a, "daemon-0")
		if p.GetState() != pb.ProcessState_PROCESS_STATE_ENDED || len(s.lab.Children()["daemon-0"]) > 0 {
			return fmt.Sprintf("%s%v goes on: %v", out, fourth, p)
		}
		return ""
	})
	if p := s.process(a, "daemon-0"); p.GetLastExit().GetSignal() != "SIGTERM" && !p.GetLastExit().GetUnknown() {
		t.Errorf("it was stopped by %v", p.GetLastExit())
	}
	zombies, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", a.PID()))
	s.must(err)
	for _, list := range zombies {
		if text, _ := os.ReadFile(list); len(text) > 0 {
			t.Errorf("the agent has not reaped %s", text)
		}
	}
}
