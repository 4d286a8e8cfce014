// Package lab runs the built programs on this machine's loopback, each in a
// directory of its own: LAN managers, agents, and an observer that sees the
// LAN's tables change. The whole-way tests, the demonstration and the
// benchmarks stand on it. Nothing outside of e2e and bench imports it.
package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// patience is how long a program may take to come up, or to go, on a slow machine
// that has other things to do.
const patience = time.Minute

// Lab is a directory with what runs from it. One goroutine uses it.
type Lab struct {
	Dir   string // for everything that is made here
	Pages bool   // whether its LAN managers show their page
	Bin   string // where agentd, agentctl and lanmanager are

	// Prepare, if set, may change a program that is about to be started.
	Prepare func(*exec.Cmd)

	running []*Program
	agents  []*Agent
	claims  []net.Listener // see Ports
}

// Program is a running program of the lab.
type Program struct {
	Name string
	Log  string // its output
	from int64  // where its output begins in Log, behind that of its predecessors
	cmd  *exec.Cmd
	end  chan struct{} // closed when it has ended
}

// start runs a program with its output in a file beside its directory. The
// environment is added to ours.
func (l *Lab) start(name, dir string, environment []string, program string, args ...string) (*Program, error) {
	log := filepath.Join(l.Dir, name+".log")
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	from, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(l.Bin, program), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env = append(os.Environ(), environment...)
	if l.Prepare != nil {
		l.Prepare(cmd)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s can not be started: %w; run `make build` first", name, err)
	}
	p := &Program{Name: name, Log: log, from: from, cmd: cmd, end: make(chan struct{})}
	go func() { // ends with the program, which Stop and Close end
		_ = cmd.Wait()
		close(p.end)
	}()
	l.running = append(l.running, p)
	return p, nil
}

// PID of the program.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal to the program.
func (p *Program) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Ended is closed when the program has ended.
func (p *Program) Ended() <-chan struct{} { return p.end }

// ExitCode waits for the end, and tells how it was; -1 after a signal.
func (p *Program) ExitCode() int {
	<-p.end
	return p.cmd.ProcessState.ExitCode()
}

// Stop sends a signal and waits for the end. A program that has ended by itself
// is as good.
func (p *Program) Stop(s syscall.Signal) error {
	_ = p.Signal(s)
	select {
	case <-p.end:
		return nil
	case <-time.After(patience):
		_ = p.Signal(syscall.SIGQUIT) // has a Go program tell what it is doing, and end
		select {
		case <-p.end:
		case <-time.After(time.Second):
			_ = p.cmd.Process.Kill()
			<-p.end
		}
		return fmt.Errorf("%s did not end within %s of signal %v and was killed; its output is in %s", p.Name, patience, s, p.Log)
	}
}

// Close stops everything that still runs: the agents with their children, then
// the LAN managers. The error also tells what an agent has left behind that was
// not there to end it; that is killed.
func (l *Lab) Close() error {
	var failures []error
	for _, a := range l.agents {
		failures = append(failures, a.close())
	}
	for _, p := range l.running {
		failures = append(failures, p.Stop(syscall.SIGTERM))
	}
	for instance, left := range l.Children() {
		for _, c := range left {
			failures = append(failures, fmt.Errorf("process %d of %s was left behind: %s", c.PID, instance, c.Command))
			c.Kill()
		}
	}
	for _, c := range l.claims {
		c.Close()
	}
	l.running, l.agents, l.claims = nil, nil, nil
	return errors.Join(failures...)
}

// await polls a program until it does what is awaited.
func (p *Program) await(what string, done func() bool) error {
	deadline := time.After(patience)
	for {
		if done() {
			return nil
		}
		select {
		case <-p.end:
			return fmt.Errorf("%s ended before %s:\n%s", p.Name, what, p.Output())
		case <-deadline:
			return fmt.Errorf("%s is not %s after %s:\n%s", p.Name, what, patience, p.Output())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// answers tells whether somebody listens there.
func answers(network, address string) bool {
	c, err := net.Dial(network, address)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// Output is what the program wrote, at most the last 8 KiB.
func (p *Program) Output() string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	text = text[min(p.from, int64(len(text))):]
	if len(text) > 8192 {
		text = text[len(text)-8192:]
	}
	return string(bytes.TrimSpace(text))
}

// WriteJSON writes a file and the directories on the way to it.
func WriteJSON(path string, v any) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
