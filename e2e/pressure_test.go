//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// An agent that gets no descriptor any more keeps what it has, answers who is
// connected, and says what it lacks; with descriptors it goes on by itself.
func TestOutOfDescriptors(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(2, "hello")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address})
	s.served(o, 2)
	s.linked(a) // and our connection to it is open
	before := s.singles()

	var usual unix.Rlimit
	s.must(unix.Prlimit(a.PID(), unix.RLIMIT_NOFILE, nil, &usual))
	// With none at all not even poll(2) would look at one.
	s.must(unix.Prlimit(a.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: usual.Max}, nil))
	s.add(a, "more")
	s.until(func() string {
		d := s.need(a, "more")
		if d.GetDecision() != pb.Decision_DECISION_BACKOFF || !strings.Contains(d.GetDetail(), "too many open files") {
			return d.String()
		}
		return ""
	})
	for instance, c := range s.singles() {
		if before[instance] != c {
			t.Errorf("%s was %v and is %v", instance, before[instance], c)
		}
	}

	s.must(unix.Prlimit(a.PID(), unix.RLIMIT_NOFILE, &usual, nil))
	s.served(o, 3)
	for instance, c := range s.singles() {
		if was, ok := before[instance]; ok && was != c {
			t.Errorf("%s was %v and is %v", instance, was, c)
		}
	}
}

// On a full disk what runs goes on, and what ends is replaced: its files are there.
// What is new waits, and says for what. With room all of it comes back by itself.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 4<<20)
	s := newStage(t)
	o, a := s.talkative(disk)
	talker, said := s.child("talker-0"), filepath.Join(disk, "log", "talker-0.log")
	room := s.fill(disk)

	seen := len(o.Changes())
	s.child("hello-0").Kill()
	s.must(o.AwaitAgain(s.ctx, seen, "hello-0"))
	s.add(a, "more")
	s.short(a, "more", filepath.Join(disk, "run", "more.json"), "no space left on device; make room")
	s.refusedHold(a, "hello-1", "kept.json: no space left on device; make room")
	s.served(o, 2)
	before := s.singles()
	if before["talker-0"] != talker {
		t.Errorf("the talker was %v and is %v", talker, before["talker-0"])
	}

	full := s.size(said)
	room()
	s.served(o, 3)
	s.written(a, disk, "hello-1")
	s.until(func() string {
		if s.size(said) == full {
			return "more output of " + talker.Command
		}
		return ""
	})
	before = s.singles()
	s.killed(a, disk)
	s.served(o, 3)
	s.unchanged(before)
}

// While the state directory is read-only what runs goes on, and what ends is
// reported and waits. An agent that starts there says what is wrong, and changes
// nothing.
func TestReadOnlyStateDirectory(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 4<<20)
	s := newStage(t)
	o, a := s.talkative(disk)
	before := s.singles()
	writable := s.readOnly(disk)

	before["hello-0"].Kill()
	s.served(o, 2)
	s.short(a, "hello-0", filepath.Join(disk, "run", "hello-0.json"), "read-only file system; mount its file system writable again")
	s.refusedHold(a, "hello-1", "kept.json: read-only file system; mount its file system writable again")
	s.served(o, 1)
	writable()
	s.served(o, 2)
	s.written(a, disk, "hello-1")

	before = s.singles()
	writable = s.readOnly(disk)
	s.must(a.Leave())
	is := s.tree(filepath.Join(disk, "run"))
	got := s.agentd(a.Directory)
	want := "agentd: statedirectory: open " + filepath.Join(disk, "lock") + ": read-only file system; mount its file system writable again"
	if got.code != refused || !strings.HasPrefix(got.problems, want) {
		t.Errorf("got %+v, want %s", got, want)
	}
	s.sameTree(filepath.Join(disk, "run"), is)
	writable()
	s.again("machine")
	s.served(o, 2)
	s.unchanged(before)
}

// talkative is a LAN with an agent that has its state on that disk and serves two
// who say hello, and one who talks on, heard or not.
func (s *stage) talkative(disk string) (*lab.Observer, *lab.Agent) {
	s.t.Helper()
	manager := s.lan(append(needs(2, "hello"), needs(1, "talker")...)...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Config: map[string]any{"statedirectory": disk},
		Modules: map[string]lab.Module{"hello": s.hello(), "talker": s.role("talker", map[string]string{tireless: "yes"})}})
	s.served(o, 3)
	s.linked(a)
	return o, a
}

// add has the LAN need one more.
func (s *stage) add(a *lab.Agent, instance string) {
	s.t.Helper()
	_, err := a.Client.Needs.AddNeed(s.ctx, &pb.AddNeedRequest{Need: &pb.Need{Instance: instance, Module: "hello"}})
	s.must(err)
}

// short waits until an agent backs off from a need for a reason that says all of
// that, and blames no module for it.
func (s *stage) short(a *lab.Agent, instance string, reasons ...string) {
	s.t.Helper()
	s.until(func() string {
		d := s.need(a, instance)
		for _, reason := range append(reasons, "this machine can not start it now: ") {
			if d.GetDecision() != pb.Decision_DECISION_BACKOFF || !strings.Contains(d.GetDetail(), reason) {
				return fmt.Sprintf("%q in %v", reason, d)
			}
		}
		return ""
	})
}

// refusedHold holds an instance whose hold can not be written, and is not written for
// a reason that agentctl tells, and goes on telling.
func (s *stage) refusedHold(a *lab.Agent, instance, reason string) {
	s.t.Helper()
	out, err := a.Ctl(s.ctx, "stop", instance)
	if err == nil || !strings.Contains(out, "the change is in force but is not written") || !strings.Contains(out, reason) {
		s.t.Errorf("agentctl stop: %v, %s", err, out)
	}
	s.until(func() string {
		if out, err := a.Ctl(s.ctx, "status"); err != nil || !strings.Contains(out, reason) {
			return fmt.Sprintf("%q in agentctl status: %v, %s", reason, err, out)
		}
		return ""
	})
}

// written waits until there is a hold on the disk, and no warning of what is not.
func (s *stage) written(a *lab.Agent, disk, hold string) {
	s.t.Helper()
	s.until(func() string {
		kept, err := os.ReadFile(filepath.Join(disk, "kept.json"))
		if !strings.Contains(string(kept), strconv.Quote(hold)) {
			return fmt.Sprintf("a hold of %s: %s, %v", hold, kept, err)
		}
		answer, err := a.Client.Agent.GetStatus(s.ctx, &pb.GetStatusRequest{})
		s.must(err)
		if warnings := fmt.Sprint(answer.GetWarnings()); strings.Contains(warnings, "could not be written") {
			return "no warning: " + warnings
		}
		return ""
	})
}

// readOnly has nothing written to a disk any more but by those who have a file open.
func (s *stage) readOnly(disk string) (writable func()) {
	s.t.Helper()
	s.must(unix.Mount(disk, disk, "", unix.MS_BIND, ""))
	s.must(unix.Mount("", disk, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	writable = sync.OnceFunc(func() {
		s.until(func() string {
			if err := unix.Unmount(disk, 0); err != nil { // somebody looks at a file there
				return err.Error()
			}
			return ""
		})
	})
	s.t.Cleanup(writable)
	return writable
}

// killed kills an agent, and makes sure that nothing of its state is damaged when
// the next one has looked at it.
func (s *stage) killed(a *lab.Agent, disk string) *lab.Agent {
	s.t.Helper()
	s.must(a.Stop(syscall.SIGKILL))
	a = s.again(a.Name)
	for path := range s.tree(disk) {
		if strings.HasSuffix(path, ".damaged") || strings.HasSuffix(path, ".tmp") {
			s.t.Errorf("%s is left", path)
		}
	}
	return a
}

// unchanged makes sure that the processes are those that they were before.
func (s *stage) unchanged(before map[string]lab.Child) {
	s.t.Helper()
	if diff := cmp.Diff(before, s.singles()); diff != "" {
		s.t.Errorf("the processes: -before +after:\n%s", diff)
	}
}

func (s *stage) size(file string) int64 {
	s.t.Helper()
	info, err := os.Stat(file)
	s.must(err)
	return info.Size()
}
