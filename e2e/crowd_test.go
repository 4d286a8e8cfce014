//go:build linux

package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// mostThreads is the agent's bound (design section 10).
const mostThreads = 16

// Many needs are all served; when all their processes are killed at once, each
// is reported once and replaced once; and no thread is spent on any of them.
func TestCrowd(t *testing.T) {
	_, err := exec.LookPath("cc")
	n, light := 1000, err == nil
	switch {
	case testing.Short():
		n = 200
	case !light:
		n = 300
	}
	s := newStage(t)
	module := s.hello()
	if light {
		module = s.sleepers(n)
	}
	wanted := make([]lab.Need, n)
	for i := range wanted {
		wanted[i] = lab.Need{InstanceName: fmt.Sprintf("member-%d", i), ModuleName: fmt.Sprintf("crowd:%d", i)}
	}
	module["modulename"] = "crowd:*"
	manager := s.lan(wanted...)
	o := s.observe(manager)
	began := time.Now()
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Ports: n + 100,
		Modules: map[string]lab.Module{"crowd": module}, Config: map[string]any{"log": map[string]string{"level": "warn"}}})
	s.served(o, n)
	t.Logf("%d needs served after %s", n, time.Since(began))
	before := s.singles()
	if len(before) != n {
		t.Fatalf("%d instances have processes, want %d", len(before), n)
	}
	if threads := s.threads(a.PID()); threads > mostThreads {
		t.Errorf("the agent has %d threads, want at most %d", threads, mostThreads)
	}

	seen := len(o.Changes())
	began = time.Now()
	for _, c := range before {
		c.Kill()
	}
	s.must(o.Await(s.ctx, "every need has been opened and served again", func(m *table.Mirror) bool {
		return m.Len() == n && len(o.ChangesLocked()) >= seen+2*n
	}))
	t.Logf("all of them replaced after %s", time.Since(began))
	after := s.singles()
	for name, old := range before {
		downs, ups := changes(o, seen, name)
		if len(downs) != 1 || len(ups) != 1 {
			t.Errorf("%s was reported %d times and replaced %d times", name, len(downs), len(ups))
		}
		if after[name].PID == 0 || after[name] == old {
			t.Errorf("%s was %v and is %v", name, old, after[name])
		}
	}
	if threads := s.threads(a.PID()); threads > mostThreads {
		t.Errorf("the agent has %d threads after the mass kill, want at most %d", threads, mostThreads)
	}
	if light {
		s.startedTwice(n)
	} else {
		s.started(before, values(after)...)
	}
}

// An agent is killed while many talk, and started again: it has them all, none is
// there twice, and no line is lost. One that ends afterwards is replaced.
func TestTalkingCrowd(t *testing.T) {
	n := 40
	if testing.Short() {
		n = 20
	}
	s := newStage(t)
	manager := s.lan(needs(n, "talker")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Ports: n + 20,
		Modules: map[string]lab.Module{"talker": s.role("talker", nil)}, Config: map[string]any{"log": map[string]string{"level": "warn"}}})
	s.served(o, n)
	before := s.singles()
	if len(before) != n {
		t.Fatalf("%d instances have processes, want %d", len(before), n)
	}
	seen := len(o.Changes())
	s.must(a.Stop(syscall.SIGKILL))
	began := time.Now()
	a = s.again("machine")
	adopted := s.running(a)
	t.Logf("%d talking children adopted %s after the start of the agent", len(adopted), time.Since(began))
	for name, c := range before {
		if p := adopted[name]; int(p.GetPid()) != c.PID || p.GetOrigin() != pb.ProcessOrigin_PROCESS_ORIGIN_ADOPTED {
			t.Errorf("%s was %v and is %v", name, c, p)
		}
	}
	s.settled(a, n)
	if diff := cmp.Diff(before, s.singles()); diff != "" {
		t.Errorf("other processes (-before +after):\n%s", diff)
	}
	if more := o.Changes()[seen:]; len(more) != 0 {
		t.Errorf("the LAN noticed: %v", more)
	}
	before["talker-7"].Kill()
	s.must(o.AwaitAgain(s.ctx, seen, "talker-7"))
	if now := s.child("talker-7"); now == before["talker-7"] {
		t.Errorf("the replacement is %v itself", now)
	}
	s.must(a.Shutdown(s.ctx)) // so that nobody is in the middle of a line
	s.talked("machine")
}

func values(m map[string]lab.Child) []lab.Child {
	var all []lab.Child
	for _, c := range m {
		all = append(all, c)
	}
	return all
}

var threadsLine = regexp.MustCompile(`(?m)^Threads:\s+(\d+)$`)

func (s *stage) threads(pid int) int {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	s.must(err)
	found := threadsLine.FindSubmatch(text)
	if found == nil {
		s.t.Fatalf("no threads in:\n%s", text)
	}
	n, err := strconv.Atoi(string(found[1]))
	s.must(err)
	return n
}

// compileSleeper compiles the benchmarks' child once.
var compileSleeper = sync.OnceValues(func() (string, error) {
	child := filepath.Join(os.TempDir(), "bin", "bsleep")
	out, err := exec.Command("cc", "-O2", "-o", child, filepath.Join("..", "bench", "testdata", "bsleep.c")).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return child, err
})

// slot is the size of what a sleeper notes of itself in the file of slots; the
// third of its 8-byte numbers counts its starts.
const slot = 64

func (s *stage) slots() string { return filepath.Join(s.lab.Dir, "slots") }

// sleepers is the module of the benchmarks' child, which is so small that a
// thousand of them are nothing.
func (s *stage) sleepers(n int) lab.Module {
	s.t.Helper()
	child, err := compileSleeper()
	s.must(err)
	s.must(os.WriteFile(s.slots(), make([]byte, n*slot), 0o644))
	module := s.hello()
	module["command"] = []string{child, s.slots(), "${module}"}
	return module
}

// startedTwice makes sure that every sleeper was started twice and no more.
func (s *stage) startedTwice(n int) {
	s.t.Helper()
	text, err := os.ReadFile(s.slots())
	s.must(err)
	for i := range n {
		if starts := binary.NativeEndian.Uint64(text[i*slot+16:]); starts != 2 {
			s.t.Errorf("sleeper %d was started %d times, want 2", i, starts)
		}
	}
}
