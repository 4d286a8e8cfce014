//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// patientRole is a server whose pages /live and /ready fail from a signal on, SIGUSR1
// and SIGUSR2, until the next one.
func patientRole() error {
	var failing [2]atomic.Bool
	told := make(chan os.Signal, 8)
	signal.Notify(told, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range told {
			f := &failing[map[os.Signal]int{syscall.SIGUSR1: 0, syscall.SIGUSR2: 1}[s]]
			f.Store(!f.Load())
		}
	}()
	answer := func(f *atomic.Bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if f.Load() {
				http.Error(w, "not now", http.StatusServiceUnavailable)
			}
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/live", answer(&failing[0]))
	mux.HandleFunc("/ready", answer(&failing[1]))
	return http.ListenAndServe(":"+os.Getenv("HTTP_PORT"), mux)
}

func (s *stage) patients() map[string]lab.Module {
	module := s.role("patient", nil)
	check := func(path string) map[string]any { // five, since a machine under load may be late with one or two
		return map[string]any{"kind": "http", "path": path, "interval": "200ms", "timeout": "200ms", "failures": 5}
	}
	module["health"] = map[string]any{"live": check("/live"), "ready": check("/ready")}
	return map[string]lab.Module{"patient": module}
}

// The next agent has processes be withdrawn, and be made to end, as the one before has
// left them.
func TestNextAgentKnowsHowTheyStand(t *testing.T) {
	for name, next := range map[string]func(*stage, *lab.Agent) *lab.Agent{
		"killed": func(s *stage, a *lab.Agent) *lab.Agent {
			s.must(a.Stop(syscall.SIGKILL))
			return s.again("machine")
		},
		"upgraded": func(s *stage, a *lab.Agent) *lab.Agent {
			s.ok(a, "upgrade")
			return a
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			modules := s.patients()
			modules["deaf"] = s.role("patient", nil) // whom its stop signal does not end
			modules["deaf"]["modulename"], modules["deaf"]["stop"] = "deaf", map[string]string{"signal": "SIGUSR1", "timeout": "3s"}
			manager := s.lan(append(needs(1, "patient"), needs(1, "deaf")...)...)
			o := s.observe(manager)
			a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules})
			s.served(o, 2)
			ill, deaf := s.child("patient-0"), s.child("deaf-0")
			s.tell(a, "patient-0", "SIGUSR2")
			s.served(o, 1)
			s.ok(a, "report-down", "deaf-0", "--reason", "enough")
			s.served(o, 0)

			seen := len(o.Changes())
			a = next(s, a)
			if p := s.process(a, "patient-0"); p.GetState() != pb.ProcessState_PROCESS_STATE_WITHDRAWN || !strings.Contains(p.String(), "503") {
				t.Errorf("the one that was not well is %v", p)
			}
			s.served(o, 1)
			if now := s.child("deaf-0"); now.PID == deaf.PID || deaf.Alive() {
				t.Errorf("the one that was made to end lives: %v", now)
			}
			if _, ups := changes(o, seen, "patient-0"); len(ups) != 0 {
				t.Errorf("the one that was not well was offered: %v", ups)
			}
			s.tell(a, "patient-0", "SIGUSR2")
			s.served(o, 2)
			if now := s.child("patient-0"); now != ill {
				t.Errorf("the one that was not well is another one: %v", now)
			}
		})
	}
}

// A process that is not well leaves the LAN's table and comes back when it is
// well again, if nobody else serves by then; one that is not alive is replaced.
func TestHealth(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "patient")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: s.patients()})
	s.served(o, 1)
	first := s.child("patient-0")

	s.tell(a, "patient-0", "SIGUSR2")
	s.served(o, 0)
	d := s.decided(a, "patient-0", pb.Decision_DECISION_STARTING)
	if !strings.Contains(d.GetDetail(), "withdrawn until it is well again") || !strings.Contains(d.GetDetail(), "503") {
		t.Errorf("it is not offered because %q", d.GetDetail())
	}
	s.tell(a, "patient-0", "SIGUSR2")
	s.served(o, 1)
	if now := s.child("patient-0"); now != first {
		t.Errorf("the process is %v, was %v", now, first)
	}

	s.tell(a, "patient-0", "SIGUSR1")
	s.until(func() string {
		if p := s.running(a)["patient-0"]; p == nil || int(p.GetPid()) == first.PID || p.GetState() != pb.ProcessState_PROCESS_STATE_READY {
			return "no replacement is ready"
		}
		return ""
	})
	if reason := s.process(a, "patient-0").GetLastReason(); !strings.Contains(reason, "not alive") {
		t.Errorf("the first ended because %q", reason)
	}
}

// While it is not well another machine takes the need over, and what is not
// wanted any more is stopped.
func TestHealthElsewhere(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "patient")...)
	o := s.observe(manager)
	one := s.agent("one", lab.AgentFiles{LANManager: manager.Address, Modules: s.patients(), Config: map[string]any{"orphangrace": "300ms"}})
	s.served(o, 1)
	first := s.child("patient-0")
	two := s.agent("two", lab.AgentFiles{LANManager: manager.Address, Modules: s.patients(), Config: map[string]any{"address": "127.0.0.2"}})
	s.linked(two)

	s.tell(one, "patient-0", "SIGUSR2")
	s.until(func() string {
		if p := s.running(two)["patient-0"]; p.GetState() != pb.ProcessState_PROCESS_STATE_READY {
			return "the other machine does not serve"
		}
		return ""
	})
	s.gone(first)
	s.served(o, 1)
	s.until(func() string { // it is told after the end
		if p := s.process(one, "patient-0"); !strings.Contains(p.GetLastReason(), "SERVED_ELSEWHERE") {
			return fmt.Sprintf("the reason, which is %q", p.GetLastReason())
		}
		return ""
	})
}
