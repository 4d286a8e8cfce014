//go:build linux

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/allexgo/machine-agent/client"
	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/internal/fault"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

var upgradeChildren = flag.Int("upgrade-children", 40, "how many children TestUpgrade has")

// An agent becomes another one, thrice, while it is called: no child ends, no call
// that may be repeated fails, no port and no socket is free, no service leaves the
// LAN's table, and how children end is known as ever.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	n := *upgradeChildren
	s := newStage(t)
	manager := s.lan(needs(n, "hello")...)
	o := s.observe(manager)
	module := s.hello()
	module["ports"] = []string{"tcp", "http"} // nobody listens on the first
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Ports: n + 20, Modules: map[string]lab.Module{"hello": module}})
	s.served(o, n)
	s.settled(a, n)
	s.endKnown(a, o, "hello-0")
	first, seen := s.singles(), len(o.Changes())

	load := s.callers(a)
	thief := s.thief(int(s.process(a, "hello-1").GetPorts().GetTcp()))
	for range 3 {
		out, err := a.Ctl(s.ctx, "upgrade")
		if err != nil || !strings.Contains(out, fmt.Sprintf("in process %d", a.PID())) {
			t.Fatalf("agentctl upgrade: %v\n%s", err, out)
		}
		s.linked(a)
		load.more(s)
	}
	load.stop(t)
	thief.stop(t)
	if now := s.singles(); !maps.Equal(now, first) {
		t.Errorf("the children are %v, they were %v", now, first)
	}
	for _, c := range o.Changes()[seen:] {
		if !c.Up {
			t.Errorf("%s left the table", c.Instance)
		}
	}
	for instance, p := range s.running(a) {
		if int(p.GetPid()) != first[instance].PID {
			t.Errorf("the agent has %v, it is %v", p, first[instance])
		}
	}
	s.endKnown(a, o, "hello-1")
	s.endsDuring(a, o)
}

// endKnown ends a child, and sees that the agent knows how.
func (s *stage) endKnown(a *lab.Agent, o *lab.Observer, instance string) {
	s.t.Helper()
	seen := len(o.Changes())
	s.child(instance).Kill()
	s.must(o.AwaitAgain(s.ctx, seen, instance))
	if exit := s.process(a, instance).GetLastExit(); exit.GetSignal() != "SIGKILL" {
		s.t.Errorf("%s ended with %v", instance, exit)
	}
}

// endsDuring ends children while the agent becomes another one. Whichever of the
// two has seen it, none takes it for an end that nobody saw.
func (s *stage) endsDuring(a *lab.Agent, o *lab.Observer) {
	s.t.Helper()
	before, seen := s.singles(), len(o.Changes())
	var dying []string
	for instance := range before {
		if len(dying) < len(before)/2 {
			dying = append(dying, instance)
		}
	}
	var killing sync.WaitGroup
	killing.Go(func() {
		for _, instance := range dying {
			before[instance].Kill()
		}
	})
	out, err := a.Ctl(s.ctx, "upgrade")
	killing.Wait()
	if err != nil {
		s.t.Fatal(out)
	}
	for _, instance := range dying {
		s.must(o.AwaitAgain(s.ctx, seen, instance))
	}
	s.served(o, len(before))
	for _, instance := range dying {
		if exit := s.process(a, instance).GetLastExit(); exit.GetUnknown() {
			s.t.Errorf("nobody knows how %s ended", instance)
		}
		if c := before[instance]; c.Exists() {
			s.t.Errorf("process %d of %s was not reaped", c.PID, instance)
		}
	}
	s.singles()
}

// background is what goes on until it is stopped.
type background struct {
	cancel context.CancelFunc
	all    sync.WaitGroup
	calls  atomic.Int64

	mu       sync.Mutex
	failures []error
}

func (s *stage) background(workers int, work func(ctx context.Context) error) *background {
	ctx, cancel := context.WithCancel(s.ctx)
	b := &background{cancel: cancel}
	for range workers {
		b.all.Go(func() {
			for ctx.Err() == nil {
				if err := work(ctx); err != nil && ctx.Err() == nil {
					b.mu.Lock()
					b.failures = append(b.failures, err)
					b.mu.Unlock()
				}
				b.calls.Add(1)
			}
		})
	}
	return b
}

// more waits until there have been more calls.
func (b *background) more(s *stage) {
	s.t.Helper()
	until := b.calls.Load() + 20
	s.until(func() string {
		if now := b.calls.Load(); now < until {
			return fmt.Sprintf("%d calls of %d", now, until)
		}
		return ""
	})
}

func (b *background) stop(t *testing.T) {
	t.Helper()
	b.cancel()
	b.all.Wait()
	if len(b.failures) > 0 {
		t.Errorf("%d of %d calls failed, the first with: %v", len(b.failures), b.calls.Load(), b.failures[0])
	}
}

// callers call an agent, on one connection and on new ones.
func (s *stage) callers(a *lab.Agent) *background {
	return s.background(4, func(ctx context.Context) error {
		raw, err := net.Dial("unix", a.Socket)
		if err != nil {
			return err
		}
		defer raw.Close()
		fresh, err := client.Dial("unix:" + a.Socket)
		if err != nil {
			return err
		}
		defer fresh.Close()
		for _, c := range []*client.Client{a.Client, fresh} {
			_, err1 := c.Agent.GetStatus(ctx, &pb.GetStatusRequest{})
			_, err2 := c.Processes.GetProcess(ctx, &pb.GetProcessRequest{Instance: "hello-0"})
			_, err3 := c.Needs.ListNeeds(ctx, &pb.ListNeedsRequest{PageSize: 10})
			_, err4 := c.Processes.ListProcesses(ctx, &pb.ListProcessesRequest{PageSize: 10})
			if err := errors.Join(err1, err2, err3, err4); err != nil {
				return err
			}
		}
		return nil
	})
}

// thief tries to get a port that is leased and not listened on, without
// SO_REUSEADDR, which is for the port's own child.
func (s *stage) thief(port int) *background {
	return s.background(1, func(context.Context) error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrInet6{Port: port}); !errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("port %d was free: %w", port, err)
		}
		return nil
	})
}

// A program that is no agent, or finds something not good, is refused, and the agent
// goes on as if nothing had been.
func TestUpgradeRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	_, _, a := s.serving(1)
	first := s.singles()
	agentd := filepath.Join(s.lab.Bin, "agentd")
	elf, err := os.ReadFile(agentd)
	s.must(err)
	const machine = 18 // where the header of an ELF file says for which processor it is
	elf[machine], elf[machine+1] = 0xff, 0x7f

	for name, test := range map[string]struct{ program, says string }{
		"nothing":        {"", "no such file"},
		"other computer": {string(elf), "exec format error"},
		"no agent":       {"#!/bin/sh\nexit 0\n", "may be no agentd"},
		"complaint":      {"#!/bin/sh\necho the moon is full\nexit 2\n", "the moon is full"},
		"hanging":        {"#!/bin/sh\nexec sleep 1000\n", "did not end in time"},
		"other format":   {"#!/bin/sh\nexec " + agentd + ` "$@" --take-over 99` + "\n", "takes over in format"},
		"older":          {"#!/bin/sh\nexec " + agentd + ` "$@" --from-the-future` + "\n", "from-the-future"},
	} {
		binary := filepath.Join(t.TempDir(), "agentd")
		if test.program != "" {
			s.must(os.WriteFile(binary, []byte(test.program), 0o755))
		}
		within := "20s"
		if name == "hanging" {
			within = "1s"
		}
		out, err := a.Ctl(s.ctx, "upgrade", "--binary", binary, "--ready-within", within)
		if err == nil || !strings.Contains(out, test.says) {
			t.Errorf("%s: %v, it should say %q:\n%s", name, err, test.says, out)
		}
	}
	bad := filepath.Join(a.Directory, "modules", "bad.json")
	s.must(os.WriteFile(bad, []byte(`{"modulename": "bad"}`), 0o644))
	if out, err := a.Ctl(s.ctx, "upgrade"); err == nil || !strings.Contains(out, "bad.json") {
		t.Errorf("with a bad module: %v\n%s", err, out)
	}
	record := filepath.Join(a.Directory, ".allexmaster", "run", "hello-0.json")
	s.must(os.Remove(bad))
	if _, err := os.Stat(record); err != nil {
		t.Error(err)
	}
	status, err := a.Client.Agent.GetStatus(s.ctx, &pb.GetStatusRequest{})
	s.must(err)
	if status.GetLastUpgrade() != nil || int(status.GetPid()) != a.PID() {
		t.Errorf("the agent is %v", status)
	}
	if now := s.singles(); !maps.Equal(now, first) {
		t.Errorf("the children are %v, they were %v", now, first)
	}
}

// A program that was found good and then is not ready gives way to the one before,
// which says why; a better one can come afterwards.
func TestUpgradeGoesBack(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager, o, a := s.serving(3)
	s.settled(a, 3)
	first, seen := s.singles(), len(o.Changes())
	hanging := filepath.Join(s.lab.Dir, "hanging")
	s.must(os.Mkdir(hanging, 0o755))
	s.must(syscall.Mkfifo(filepath.Join(hanging, "allexmasterconfig.json"), 0o644))
	elsewhere, err := s.lab.WriteAgent("elsewhere", lab.AgentFiles{LANManager: manager.Address, Ports: 20})
	s.must(err)
	agentd := filepath.Join(s.lab.Bin, "agentd")

	for name, test := range map[string]struct{ then, within, says string }{
		"unknown flag":     {"exec " + agentd + ` "$@" --unknown`, "20s", "unknown"},
		"hanging":          {"exec " + agentd + " --directory " + hanging, "2s", "not ready within"},
		"other state":      {"exec " + agentd + " --directory " + elsewhere, "20s", "another statedirectory"},
		"gone after check": {"", "20s", "no such file"},
	} {
		binary := filepath.Join(t.TempDir(), "agentd")
		check := "exec " + agentd + ` "$@"`
		if test.then == "" {
			check = `rm "$0"; ` + check
		}
		script := "#!/bin/sh\ncase \"$*\" in *--check*) " + check + ";; esac\n" + test.then + "\n"
		s.must(os.WriteFile(binary, []byte(script), 0o755))
		out, err := a.Ctl(s.ctx, "upgrade", "--binary", binary, "--ready-within", test.within)
		if err == nil || !strings.Contains(out, "as before") || !strings.Contains(out, test.says) {
			t.Errorf("%s: %v, it should say %q:\n%s", name, err, test.says, out)
		}
		s.linked(a)
	}
	if out, err := a.Ctl(s.ctx, "status"); err != nil || !strings.Contains(out, "FAILED") {
		t.Errorf("the status does not tell of the failed upgrade: %v\n%s", err, out)
	}
	if out, err := a.Ctl(s.ctx, "upgrade", "--binary", agentd); err != nil {
		t.Errorf("after all that: %v\n%s", err, out)
	}
	s.linked(a)
	if now := s.singles(); !maps.Equal(now, first) {
		t.Errorf("the children are %v, they were %v", now, first)
	}
	for _, c := range o.Changes()[seen:] {
		if !c.Up {
			t.Errorf("%s left the table", c.Instance)
		}
	}
	s.endKnown(a, o, "hello-2")
}

// An agent that is asked to leave leaves, also at the moment at which it becomes
// another one, and its processes are there for the next.
func TestLeaveWhileUpgraded(t *testing.T) {
	t.Parallel()
	bin := faultyBuild(t) // which may take longer than all of the rest
	s := newStage(t)
	s.lab.Bin = bin
	manager := s.lan(needs(2, "hello")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"hello": s.hello()}})
	s.served(o, 2)
	s.settled(a, 2)
	first := s.singles()
	s.must(a.Stop(syscall.SIGTERM))
	a, err := s.lab.StartAgent("machine", fmt.Sprintf("%s=%s=1m@1", fault.Variable, fault.HandingOver))
	s.must(err)
	_, err = a.Client.Agent.Upgrade(s.ctx, &pb.UpgradeRequest{})
	s.must(err)
	s.until(func() string {
		if out := a.Output(); !strings.Contains(out, "fault: 1m0s at handing-over") && !strings.Contains(out, "fault: 1m at handing-over") {
			return out
		}
		return ""
	})
	s.must(a.Stop(syscall.SIGTERM))
	a, err = s.lab.StartAgent("machine")
	s.must(err)
	s.settled(a, 2)
	if now := s.singles(); !maps.Equal(now, first) {
		t.Errorf("the children are %v, they were %v", now, first)
	}
}

// An upgrade that can not begin is refused with the reason, and leaves an agent that
// removes its sockets when it leaves.
func TestUpgradeCanNotBegin(t *testing.T) {
	t.Parallel()
	bin := faultyBuild(t)
	s := newStage(t)
	s.lab.Bin = bin
	_, err := s.lab.WriteAgent("machine", lab.AgentFiles{LANManager: "127.0.0.1:1"})
	s.must(err)
	a, err := s.lab.StartAgent("machine", fmt.Sprintf("%s=%s=fail@3", fault.Variable, fault.Gathering))
	s.must(err)
	out, err := a.Ctl(s.ctx, "upgrade", "--timeout", "10s")
	if err == nil || !strings.Contains(out, "nothing has changed") || !strings.Contains(out, "asked for at gathering") {
		t.Errorf("%v, it should say why:\n%s", err, out)
	}
	s.must(a.Stop(syscall.SIGTERM))
	for _, name := range []string{a.Socket, a.Socket + ".lock", a.Socket + ".notify"} {
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
}

// An agent that has not yet taken over from the one before becomes another one when it
// has: until then the one before may come back.
func TestUpgradeWhileTakingOver(t *testing.T) {
	t.Parallel()
	bin := faultyBuild(t)
	s := newStage(t)
	s.lab.Bin = bin
	manager := s.lan(needs(1, "hello")...)
	o := s.observe(manager)
	_, err := s.lab.WriteAgent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"hello": s.hello()}})
	s.must(err)
	a, err := s.lab.StartAgent("machine", fmt.Sprintf("%s=%s=3s@1,%s=1ms@1", fault.Variable, fault.Adopting, fault.TakenOver))
	s.must(err)
	s.served(o, 1)
	s.settled(a, 1)
	first := s.singles()
	_, err = a.Client.Agent.Upgrade(s.ctx, &pb.UpgradeRequest{})
	s.must(err)
	s.until(func() string {
		if out := a.Output(); !strings.Contains(out, "fault: 3s at adopting") {
			return out
		}
		return ""
	})
	next, err := a.Client.Agent.Upgrade(s.ctx, &pb.UpgradeRequest{ReadyWithin: durationpb.New(30 * time.Second)})
	s.must(err)
	if out := a.Output(); !strings.Contains(out, "fault: 1ms at taken-over") {
		t.Errorf("it becomes another one before it has taken over:\n%s", out)
	}
	s.until(func() string {
		status, err := a.Client.Agent.GetStatus(s.ctx, &pb.GetStatusRequest{})
		if last := status.GetLastUpgrade(); err != nil || last.GetId() != next.GetId() || last.GetProblem() != "" {
			return fmt.Sprint(last, err)
		}
		return ""
	})
	s.linked(a)
	if now := s.singles(); !maps.Equal(now, first) {
		t.Errorf("the children are %v, they were %v", now, first)
	}
}

// An agent that shuts down does not become another one, which would begin anew.
func TestShutdownIsNotUpgraded(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "stubborn")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"stubborn": s.stubborn(3 * time.Second)}})
	s.served(o, 1)
	_, err := a.Client.Agent.Shutdown(s.ctx, &pb.ShutdownRequest{})
	s.must(err)
	if out, err := a.Ctl(s.ctx, "upgrade"); err == nil {
		t.Errorf("it was upgraded: %s", out)
	}
	if code := a.ExitCode(); code != 0 || len(s.lab.Children()) != 0 {
		t.Errorf("the agent ended with %d and left %v", code, s.lab.Children())
	}
}

// Who follows a log is told that the agent leaves, and does not hold up the upgrade.
func TestUpgradeWhileALogIsFollowed(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	_, _, a := s.serving(1)
	log, err := a.Client.Processes.TailLogs(s.ctx, &pb.TailLogsRequest{Instance: "hello-0", Follow: true})
	s.must(err)
	_, err = log.Recv()
	s.must(err)
	s.ok(a, "upgrade")
	for err == nil {
		_, err = log.Recv()
	}
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Reason != "SHUTTING_DOWN" {
		t.Errorf("it ended with %v", err)
	}
}
