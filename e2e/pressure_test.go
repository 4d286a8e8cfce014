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
	_, o, a := s.serving(2)
	s.linked(a) // and our connection to it is open
	before := s.singles()

	var usual unix.Rlimit
	s.must(unix.Prlimit(a.PID(), unix.RLIMIT_NOFILE, nil, &usual))
	// With none at all not even poll(2) would look at one.
	s.must(unix.Prlimit(a.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: usual.Max}, nil))
	s.add(a, "more")
	s.short(a, "more", "too many open files")
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

// While the disk is stuck all that needs no disk goes on as usual: answers, what
// runs, and the report of what has ended. What would have to be recorded is left to
// others, and comes back when the disk goes on.
func TestStuckDisk(t *testing.T) {
	t.Parallel()
	disk := realDisk(t)
	s := newStage(t)
	o, a := s.talkative(disk)
	before := s.singles()
	thaw := s.freeze(disk)

	// What waited for the disk would not come before it is thawed.
	seen := len(o.Changes())
	before["hello-0"].Kill()
	s.served(o, 2)
	if downs, _ := changes(o, seen, "hello-0"); len(downs) != 1 {
		t.Errorf("its end was told like this: %v", downs)
	}
	s.add(a, "more")
	const stuck = "the state directory has not taken what is written since "
	for _, instance := range []string{"hello-0", "more"} {
		if d := s.decided(a, instance, pb.Decision_DECISION_BACKOFF); !strings.Contains(d.GetDetail(), stuck) {
			t.Errorf("no %q in %v", stuck, d)
		}
	}
	s.running(a)
	if out := s.ok(a, "status"); !strings.Contains(out, stuck) || !strings.Contains(out, "see to the disk of "+disk) {
		t.Errorf("agentctl status says:\n%s", out)
	}
	if threads := s.threads(a.PID()); threads > mostThreads {
		t.Errorf("the agent has %d threads, want at most %d", threads, mostThreads)
	}
	other := s.other(a)
	s.served(o, 4)

	thaw()
	s.ok(other, "drain", "--wait")
	s.served(o, 4)
	after := s.singles()
	for _, instance := range []string{"hello-1", "talker-0"} {
		if after[instance] != before[instance] {
			t.Errorf("%s was %v and is %v", instance, before[instance], after[instance])
		}
	}
	s.killed(a, disk)
	s.unchanged(after)
}

// Where no process can be made any more what runs goes on, what ends is reported,
// and its need and new ones wait for room or for another machine.
func TestOutOfProcesses(t *testing.T) {
	t.Parallel()
	processes := ownCgroup(t, "pids")
	s := newStage(t)
	_, o, a := s.serving(2)
	s.linked(a)
	before := s.singles()
	s.must(processes.take(a.PID()))
	s.must(processes.limitTo(s.threads(a.PID())))

	before["hello-0"].Kill()
	s.served(o, 1)
	s.add(a, "more")
	for _, instance := range []string{"hello-0", "more"} {
		s.short(a, instance, "the limit of processes is reached; raise TasksMax= of the agent's unit, or ulimit -u")
	}
	other := s.other(a)
	s.served(o, 3)
	s.ok(other, "drain", "--wait")
	s.served(o, 1)
	if now := s.singles(); len(now) != 1 || now["hello-1"] != before["hello-1"] {
		t.Errorf("%v was to stay alone: %v", before["hello-1"], now)
	}

	s.must(processes.limitTo("max"))
	s.served(o, 3)
	if p := s.process(a, "more"); p.GetFailures() != 0 {
		t.Errorf("that there was no room is told as a failure: %v", p)
	}
}

// A process that takes all memory is ended by the kernel, which is told, and
// replaced; the agent and the others live on.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	memory := ownCgroup(t, "memory")
	s := newStage(t)
	manager := s.lan(append(needs(1, "hello"), needs(1, "glutton")...)...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address,
		Modules: map[string]lab.Module{"hello": s.hello(), "glutton": s.role("glutton", nil)}})
	s.served(o, 2)
	hello, glutton := s.child("hello-0"), s.child("glutton-0")
	// It alone: of several the kernel may end a second one before it has back all that
	// the first one had.
	s.must(memory.take(glutton.PID))
	s.must(memory.limitTo(128 << 20))

	seen := len(o.Changes())
	s.must(syscall.Kill(glutton.PID, syscall.SIGUSR1))
	s.must(o.AwaitAgain(s.ctx, seen, "glutton-0"))
	why := "the kernel ended it, because the memory of its cgroup was used up"
	if unix.Access("/dev/kmsg", unix.R_OK) != nil {
		why = "it ended by itself" // nobody can know more
	}
	if p := s.process(a, "glutton-0"); p.GetLastExit().GetSignal() != "SIGKILL" || !strings.HasPrefix(p.GetLastReason(), why) {
		t.Errorf("it ended like this: %s", p.GetLastReason())
	}
	if now := s.child("hello-0"); now != hello {
		t.Errorf("%v is %v now", hello, now)
	}
	s.linked(a)
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

// other is an agent on another machine of that LAN.
func (s *stage) other(a *lab.Agent) *lab.Agent {
	s.t.Helper()
	return s.agent("other", lab.AgentFiles{LANManager: s.link(a).GetLanManager()})
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
func (s *stage) killed(a *lab.Agent, disk string) {
	s.t.Helper()
	s.must(a.Stop(syscall.SIGKILL))
	s.linked(s.again(a.Name))
	s.until(func() string { // the next one may be writing just now
		for path := range s.tree(disk) {
			if strings.HasSuffix(path, ".damaged") || strings.HasSuffix(path, ".tmp") {
				return path + " is left"
			}
		}
		return ""
	})
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
