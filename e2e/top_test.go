//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/allexgo/machine-agent/client"
	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// terminal is a tmux server of its own with one window, in which agentctl runs.
type terminal struct {
	*stage
	socket string
	screen string // as it was seen last
}

// terminal runs a command in a window of so many columns and lines.
func (s *stage) terminal(columns, lines int, environment string, command ...string) *terminal {
	s.t.Helper()
	x := &terminal{stage: s, socket: filepath.Join(s.lab.Dir, "tmux")}
	x.tmux(append([]string{"-f", os.DevNull, "-u", "new-session", "-d", "-e", environment,
		"-x", fmt.Sprint(columns), "-y", fmt.Sprint(lines)}, command...)...)
	s.t.Cleanup(func() {
		_ = exec.Command("tmux", "-S", x.socket, "kill-server").Run() // it may have ended with its window
		if s.t.Failed() {
			s.t.Logf("the screen:\n%s", x.screen)
		}
		_ = os.Remove(x.socket) // it may never have been there
	})
	return x
}

func (x *terminal) tmux(args ...string) string {
	x.t.Helper()
	out, err := exec.CommandContext(x.ctx, "tmux", append([]string{"-S", x.socket}, args...)...).CombinedOutput()
	if err != nil {
		x.t.Fatalf("tmux %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// press presses keys, by the names that tmux has for them.
func (x *terminal) press(keys ...string) {
	x.t.Helper()
	x.tmux(append([]string{"send-keys"}, keys...)...)
}

// shows waits until something is to be seen.
func (x *terminal) shows(pattern string) {
	x.t.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	x.until(func() string {
		if x.screen = x.tmux("capture-pane", "-p"); re.MatchString(x.screen) {
			return ""
		}
		return fmt.Sprintf("%q on the screen:\n%s", pattern, x.screen)
	})
}

// agentctl top as a user has it: on a terminal, with keys, on a real agent.
func TestTop(t *testing.T) {
	if _, err := exec.LookPath("tmux"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("tmux is missing")
		}
		t.Skip("this needs tmux")
	}
	t.Parallel()
	s := newStage(t)
	m := s.lan(needs(3, "hello")...)
	o := s.observe(m)
	a := s.agent("machine", lab.AgentFiles{LANManager: m.Address})
	s.served(o, 3)

	x := s.terminal(100, 16, client.AddressVariable+"=unix:"+a.Socket,
		filepath.Join(s.lab.Bin, "agentctl"), "top", "--interval", "200ms")
	x.shows(`^3 processes   CPU \d+\.\d%   memory \d+`)
	x.shows(`^INSTANCE +MODULE +STATE +PLACE +PID +AGE +CPU%▼ +MEMORY +FILES +THREADS`)
	for i := range 3 {
		x.shows(fmt.Sprintf(`^hello-%d +hello +READY +SERVED +\d+ +\d+s +\d+\.\d +\d+\.\dMiB +\d+ +\d+`, i))
	}
	x.press("n")
	x.shows(`^INSTANCE▲(?s:.*)^hello-0 (?s:.*)^hello-1 (?s:.*)^hello-2 `)
	x.press("n")
	x.shows(`^INSTANCE▼(?s:.*)^hello-2 (?s:.*)^hello-1 (?s:.*)^hello-0 `)

	// What is asked is about the instance that is marked, and no is an answer.
	x.press("Home", "j", "x")
	x.shows(`^stop hello-1, and hold it on this machine\?  y: yes`)
	x.press("n")
	x.press("r")
	x.shows(`^restart hello-1\?`)
	before := s.process(a, "hello-1").GetPid()
	x.press("y")
	x.shows(`^hello-1, pid \d+, is \w+; this agent bids for its need again at once`)
	s.until(func() string {
		p := s.process(a, "hello-1")
		if p.GetHeld() {
			t.Fatal("no was taken for yes")
		}
		if p.GetState() == pb.ProcessState_PROCESS_STATE_READY && p.GetPid() != before {
			return ""
		}
		return "another process: " + p.String()
	})
	x.press("x", "y")
	x.shows(`^hello-1, pid \d+, is \w+; held here until it is started`)
	x.shows(`^2 processes `)
	x.shows(`^hello-1 +hello +ENDED `)
	x.press("s", "y")
	x.shows(`it may run here again`)
	x.shows(`^hello-1 +hello +READY `)

	x.press("/", "o-2")
	x.shows(`^show only: o-2`)
	x.press("Enter")
	x.shows(`^1 of 3 shown, with "o-2"   3 processes`)
	x.press("l")
	x.shows(`^log of hello-2, followed\n\nhello from hello-2,`)
	s.child("hello-2").Kill()
	x.shows(`^hello from hello-2,(?s:.*)^hello from hello-2,`)
	x.press("q", "Escape")
	x.shows(`^hello-0 `)

	// It fits a terminal that becomes narrow.
	x.tmux("resize-window", "-x", "40", "-y", "10")
	x.shows(`^INSTANCE. +STATE +CPU% +MEMORY +FILES\n`)

	// An agent that comes back is shown again.
	s.must(a.Leave())
	x.shows(`^of \d\d:\d\d:\d\d: THE AGENT DOES NOT ANSWER(?s:.*)^there is no agent at(?s:.*)\bstart\s+one\s+with`)
	s.again("machine")
	x.shows(`^3 processes (?s:.*)^hello-0 +READY `)

	x.press("q")
	s.until(func() string {
		if exec.Command("tmux", "-S", x.socket, "has-session").Run() == nil {
			return "the end of the window"
		}
		return ""
	})
}
