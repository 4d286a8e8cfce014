//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// recordOf is the file of an instance's process.
func recordOf(a *lab.Agent, instance string) string {
	return filepath.Join(a.Directory, ".allexmaster", "run", instance+".json")
}

// An agent is killed and each of its records damaged in another way: cut, or with
// a byte flipped. The next agent finds every process again, starts none, and has
// whole records.
func TestDamagedRecords(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	const n = 20
	manager := s.lan(needs(n, "hello")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Ports: 2 * n})
	s.served(o, n)
	children, ports := s.singles(), leases(s.running(a))

	seen := len(o.Changes())
	s.must(a.Stop(syscall.SIGKILL))
	for i := range n {
		name := recordOf(a, fmt.Sprintf("hello-%d", i))
		text, err := os.ReadFile(name)
		s.must(err)
		if at := 1 + i/2*(len(text)-2)/(n/2); i%2 == 0 {
			text = text[:at]
		} else {
			text[at] ^= 1 << (i / 2 % 7)
		}
		s.must(os.WriteFile(name, text, 0o600))
	}
	a = s.again("machine")
	s.settled(a, n)
	aside, err := filepath.Glob(recordOf(a, "*") + ".damaged")
	s.must(err)
	if len(aside) == 0 {
		t.Error("no record was damaged")
	}
	for _, name := range aside {
		s.must(os.Remove(name))
	}
	for range 2 { // the second one has whole records again
		s.settled(a, n)
		if diff := cmp.Diff(children, s.singles()); diff != "" {
			t.Errorf("other processes (-before +after):\n%s", diff)
		}
		now := s.running(a)
		if diff := cmp.Diff(ports, leases(now)); diff != "" {
			t.Errorf("other ports (-before +after):\n%s", diff)
		}
		for name, p := range now {
			if p.GetOrigin() != pb.ProcessOrigin_PROCESS_ORIGIN_ADOPTED || p.GetModule() != "hello" {
				t.Errorf("%s: %v", name, p)
			}
		}
		s.until(func() string { // they are written without haste
			for i := range n {
				if text, err := os.ReadFile(recordOf(a, fmt.Sprintf("hello-%d", i))); err != nil || !strings.Contains(string(text), `"phase":"running"`) {
					return fmt.Sprintf("the record of hello-%d is %q, %v", i, text, err)
				}
			}
			return ""
		})
		s.must(a.Stop(syscall.SIGKILL))
		a = s.again("machine")
	}
	if more := o.Changes()[seen:]; len(more) != 0 {
		t.Errorf("the LAN noticed: %v", more)
	}
	s.started(children)

	children["hello-1"].Kill()
	s.must(o.AwaitAgain(s.ctx, seen, "hello-1"))
}

// A process whose record is gone is named, and ended only if that is configured.
func TestStrays(t *testing.T) {
	for _, end := range []bool{false, true} {
		t.Run(fmt.Sprintf("endstrays %v", end), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			manager := s.lan(needs(2, "hello")...)
			o := s.observe(manager)
			a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Config: map[string]any{"endstrays": end}})
			s.served(o, 2)
			children := s.singles()
			s.must(a.Stop(syscall.SIGKILL))
			s.must(os.Remove(recordOf(a, "hello-0")))
			seen := len(o.Changes())
			a = s.again("machine")
			stray := children["hello-0"]
			if !end {
				warning := fmt.Sprintf("process %d of instance \"hello-0\" is not managed", stray.PID)
				out, err := a.Ctl(s.ctx, "status")
				s.must(err)
				if strings.Count(out, "is not managed") != 1 || !strings.Contains(out, warning) {
					t.Errorf("the status does not say %q:\n%s", warning, out)
				}
				if !stray.Alive() {
					t.Error("it was ended")
				}
				stray.Kill()
			}
			s.gone(stray)
			s.must(o.AwaitAgain(s.ctx, seen, "hello-0"))
			out, err := a.Ctl(s.ctx, "status")
			s.must(err)
			if strings.Contains(out, "is not managed") {
				t.Errorf("the status still says:\n%s", out)
			}
			if now := s.child("hello-1"); now != children["hello-1"] {
				t.Errorf("the other one was %v and is %v", children["hello-1"], now)
			}
		})
	}
}
