//go:build linux

package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// stage is where one test plays: a lab in a directory of its own, and how long
// all of it may take.
type stage struct {
	t   *testing.T
	ctx context.Context
	lab *lab.Lab
}

// enough is how long a test may take on a slow machine that has other things to do.
const enough = 5 * time.Minute

// newStage makes a stage, which is empty again when the test has ended.
func newStage(t *testing.T) *stage {
	t.Helper()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	s := &stage{t: t, ctx: ctx, lab: &lab.Lab{Dir: dir, Bin: ourBin()}}
	t.Cleanup(func() {
		cancel()
		if err := s.lab.Close(); err != nil {
			t.Error(err)
		}
		s.checkEmpty()
		if t.Failed() {
			s.showLogs()
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

// endure gives the test another time than the usual one.
func (s *stage) endure(d time.Duration) {
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	s.t.Cleanup(cancel)
	s.ctx = ctx
}

// checkEmpty makes sure that the programs have left nothing but their files:
// no socket, no temporary file, nothing damaged, no cgroup.
func (s *stage) checkEmpty() {
	cgroups := s.cgroups()
	err := filepath.WalkDir(s.lab.Dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Type() == fs.ModeSocket, strings.HasSuffix(path, ".tmp"), strings.HasSuffix(path, ".damaged"):
			s.t.Errorf("%s is left", path)
		case d.Name() == "agent.id":
			id, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, cgroup := range cgroups {
				if _, of, _ := strings.Cut(filepath.Base(cgroup), "machine-agent-"); strings.Contains(string(id), of) {
					s.t.Errorf("the cgroup %s is left", cgroup)
				}
			}
		}
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
}

// cgroups are those of all agents that were started from where we are, in the
// two places where the hierarchy is usually mounted.
func (s *stage) cgroups() []string {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil // there are none
	}
	_, own, _ := strings.Cut("\n"+string(text), "\n0::")
	own, _, _ = strings.Cut(own, "\n")
	var all []string
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		found, err := filepath.Glob(filepath.Join(mount, own, "machine-agent-*"))
		s.must(err)
		all = append(all, found...)
	}
	return all
}

// showLogs prints what the programs and the children said.
func (s *stage) showLogs() {
	err := filepath.WalkDir(s.lab.Dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".log" {
			return err
		}
		text, err := os.ReadFile(path)
		const most = 64 << 10
		if len(text) > most {
			text = text[len(text)-most:]
		}
		if len(text) > 0 {
			s.t.Logf("--- %s\n%s", strings.TrimPrefix(path, s.lab.Dir), text)
		}
		return err
	})
	if err != nil {
		s.t.Log(err)
	}
}

// lan starts a LAN manager, or starts it again.
func (s *stage) lan(needs ...lab.Need) *lab.LANManager {
	s.t.Helper()
	m, err := s.lab.StartLANManager("lan", needs)
	s.must(err)
	return m
}

// observe looks at a LAN manager until the test ends.
func (s *stage) observe(m *lab.LANManager) *lab.Observer {
	s.t.Helper()
	o, err := lab.Observe(s.ctx, m.Address)
	s.must(err)
	s.t.Cleanup(o.Close)
	return o
}

// agent writes the files of an agent and starts it. Its children are hello if
// the files name no module.
func (s *stage) agent(name string, f lab.AgentFiles) *lab.Agent {
	s.t.Helper()
	if f.Modules == nil {
		f.Modules = map[string]lab.Module{"hello": s.hello()}
	}
	if f.Ports == 0 {
		f.Ports = 20
	}
	_, err := s.lab.WriteAgent(name, f)
	s.must(err)
	return s.again(name)
}

// again starts an agent on the files of the one before it.
func (s *stage) again(name string) *lab.Agent {
	s.t.Helper()
	a, err := s.lab.StartAgent(name)
	s.must(err)
	return a
}

// linked waits until an agent has a session with the LAN manager.
func (s *stage) linked(a *lab.Agent) {
	s.t.Helper()
	s.until(func() string {
		if link := s.link(a); !link.GetConnected() {
			return "a session: " + link.String()
		}
		return ""
	})
}

// hello is the usual module: examples/hello on an HTTP port, which is started
// again without a wait.
func (s *stage) hello() lab.Module {
	return lab.Module{
		"modulename": "hello",
		"command":    []string{filepath.Join(s.lab.Bin, "hello")},
		"ports":      []string{"http"},
		"backoff":    map[string]string{"initial": "0s"},
	}
}

// needs are n needs of a module.
func needs(n int, module string) []lab.Need {
	all := make([]lab.Need, n)
	for i := range all {
		all[i] = lab.Need{InstanceName: fmt.Sprintf("%s-%d", module, i), ModuleName: module}
	}
	return all
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// served waits until there are n services.
func (s *stage) served(o *lab.Observer, n int) {
	s.t.Helper()
	s.must(o.Await(s.ctx, fmt.Sprintf("%d services", n), func(m *table.Mirror) bool { return m.Len() == n }))
}

// serving is a LAN in which one agent serves n needs.
func (s *stage) serving(n int) (*lab.LANManager, *lab.Observer, *lab.Agent) {
	s.t.Helper()
	manager := s.lan(needs(n, "hello")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address})
	s.served(o, n)
	return manager, o, a
}

// until asks again and again until the answer is empty; else it says what is
// not yet as it should be.
func (s *stage) until(question func() (missing string)) {
	s.t.Helper()
	for {
		missing := question()
		if missing == "" {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-s.ctx.Done():
			s.t.Fatal("it did not come to that: ", missing)
		}
	}
}

// process asks an agent for an instance.
func (s *stage) process(a *lab.Agent, instance string) *pb.Process {
	s.t.Helper()
	answer, err := a.Client.Processes.GetProcess(s.ctx, &pb.GetProcessRequest{Instance: instance})
	s.must(err)
	return answer.GetProcess()
}

// need asks an agent for its decision on a need; nil if it knows none.
func (s *stage) need(a *lab.Agent, instance string) *pb.NeedDecision {
	s.t.Helper()
	answer, err := a.Client.Needs.ListNeeds(s.ctx, &pb.ListNeedsRequest{})
	s.must(err)
	all := answer.GetNeeds()
	n := slices.IndexFunc(all, func(d *pb.NeedDecision) bool { return d.GetNeed().GetInstance() == instance })
	if n < 0 {
		return nil
	}
	return all[n]
}

// decided waits until an agent decides so.
func (s *stage) decided(a *lab.Agent, instance string, d pb.Decision) *pb.NeedDecision {
	s.t.Helper()
	var last *pb.NeedDecision
	s.until(func() string {
		last = s.need(a, instance)
		if last.GetDecision() == d {
			return ""
		}
		return fmt.Sprintf("%s is %v (%s) at %s, want %v", instance, last.GetDecision(), last.GetDetail(), a.Name, d)
	})
	return last
}

// running is the agent's list of live processes, by instance.
func (s *stage) running(a *lab.Agent) map[string]*pb.Process {
	s.t.Helper()
	all, err := s.processes(a)
	s.must(err)
	return all
}

// processes is running for an agent that may end meanwhile.
func (s *stage) processes(a *lab.Agent) (map[string]*pb.Process, error) {
	all := map[string]*pb.Process{}
	request := &pb.ListProcessesRequest{}
	for {
		answer, err := a.Client.Processes.ListProcesses(s.ctx, request)
		if err != nil {
			return nil, err
		}
		for _, p := range answer.GetProcesses() {
			if p.GetPid() != 0 {
				all[p.GetInstance()] = p
			}
		}
		if request.PageToken = answer.GetNextPageToken(); request.PageToken == "" {
			return all, nil
		}
	}
}

// singles are the processes of a lab in which every instance has one.
func (s *stage) singles() map[string]lab.Child {
	s.t.Helper()
	singles := map[string]lab.Child{}
	for instance, all := range s.lab.Children() {
		if len(all) != 1 {
			s.t.Errorf("%s has %d processes: %v", instance, len(all), all)
		}
		singles[instance] = all[0]
	}
	return singles
}

// child is the only process of an instance.
func (s *stage) child(instance string) lab.Child {
	s.t.Helper()
	all := s.lab.Children()[instance]
	if len(all) != 1 {
		s.t.Fatalf("%s has %d processes, want one: %v", instance, len(all), all)
	}
	return all[0]
}

// started makes sure that no other processes were ever started, as far as they
// have said hello.
func (s *stage) started(first map[string]lab.Child, later ...lab.Child) {
	s.t.Helper()
	known := map[int]bool{}
	for _, c := range append(later, slices.Collect(maps.Values(first))...) {
		known[c.PID] = true
	}
	logs, err := filepath.Glob(filepath.Join(s.lab.Dir, "*", ".allexmaster", "log", "*.log"))
	s.must(err)
	for _, name := range logs {
		text, err := os.ReadFile(name)
		s.must(err)
		for line := range strings.Lines(string(text)) {
			var instance string
			var pid int
			if n, _ := fmt.Sscanf(line, "hello from %s pid %d;", &instance, &pid); n == 2 && !known[pid] {
				s.t.Errorf("%s was also started as process %d", strings.TrimSuffix(instance, ","), pid)
			}
		}
	}
}

// gone waits until the system has nothing of a process any more, so that nobody
// can learn how it ended.
func (s *stage) gone(c lab.Child) {
	s.t.Helper()
	s.until(func() string {
		if c.Exists() {
			return fmt.Sprintf("process %d is still there", c.PID)
		}
		return ""
	})
}

// changes are those of one instance since the first seen ones.
func changes(o *lab.Observer, seen int, instance string) (downs, ups []lab.ServiceChange) {
	for _, c := range o.Changes()[seen:] {
		switch {
		case c.Instance != instance:
		case c.Up:
			ups = append(ups, c)
		default:
			downs = append(downs, c)
		}
	}
	return downs, ups
}

func total(children map[string][]lab.Child) int {
	n := 0
	for _, all := range children {
		n += len(all)
	}
	return n
}

// watchDoubles watches that no agent has two processes of one instance, until it
// is stopped.
func (s *stage) watchDoubles() (stop func()) {
	watching, cancel := context.WithCancel(s.ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for watching.Err() == nil {
			for instance, all := range s.lab.Children() {
				for i, c := range all {
					for _, other := range all[:i] {
						if c.Agent == other.Agent && c.Alive() && other.Alive() {
							s.t.Errorf("%s has two processes: %v (%s) and %v (%s)", instance, other, other.Status(), c, c.Status())
						}
					}
				}
			}
			<-time.After(2 * time.Millisecond) // others need the processor too
		}
	})
	stop = func() {
		cancel()
		watch.Wait()
	}
	s.t.Cleanup(stop)
	return stop
}
