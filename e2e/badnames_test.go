//go:build linux

package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// oddNames are names of instances that mean something else elsewhere. They are
// as good as any.
var oddNames = []string{
	"../../x", "..", ".", "/etc/passwd", "a/b", "-x", "--help", "%2E%2E%2Fx", "with space", "${propertyhash}", "$(touch x)",
	"línea\nnew", "\x1b[31m", strings.Repeat("long", 60), strings.Repeat("é", 127) + "x",
}

// impossibleNames can not be those of a process, and why.
var impossibleNames = map[string]string{
	strings.Repeat("x", 256): "has 256 bytes; wanted 1 to 255",
	"nul\x00":                "has a NUL character, which no environment can hold",
}

// What an instance is called decides nothing on this machine: needs of all odd
// names are served, and nothing is written outside of the state directory.
// Those that can not be served say why, and harm nobody. The LAN manager is the
// original, which takes any name.
func TestOddNamesFromTheLAN(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	var wanted []record
	for _, name := range slices.Concat(oddNames, slices.Collect(maps.Keys(impossibleNames))) {
		wanted = append(wanted, record{"instancename": name, "modulename": "hello"})
	}
	port, err := s.lab.Ports(1)
	s.must(err)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	manager := startOriginal(t, address, wanted)
	a := s.agent("down/below/machine", lab.AgentFiles{LANManager: address})
	manager.await(s, "all odd names are served", func(at map[string]string, _ []shift) bool { return len(at) == len(oddNames) })
	for _, name := range oddNames {
		p := s.process(a, name)
		if dir := filepath.Dir(p.GetLogFile()); dir != filepath.Join(a.Directory, ".allexmaster", "log") {
			t.Errorf("%q writes its log into %s", name, dir)
		}
		if p.GetPid() != int32(s.child(name).PID) {
			t.Errorf("%q is process %d, the system has %v", name, p.GetPid(), s.child(name))
		}
		cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.GetPid()))
		s.must(err)
		if slices.Contains(strings.FieldsFunc(string(cgroup), func(r rune) bool { return r == '/' || r == '\n' }), "..") {
			t.Errorf("%q runs in the cgroup %s", name, cgroup)
		}
	}
	for name, problem := range impossibleNames {
		s.until(func() string {
			d := s.need(a, name)
			if strings.Contains(d.GetDetail(), problem) {
				return ""
			}
			return fmt.Sprintf("the decision on %.20q is %v: %s", name, d.GetDecision(), d.GetDetail())
		})
	}
	s.nothingOutside(a)
	s.must(a.Shutdown(s.ctx))
	s.nothingOutside(a)
}

// The same by the calls that take a name.
func TestOddNamesOverTheAPI(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan()
	a := s.agent("down/below/machine", lab.AgentFiles{LANManager: manager.Address})
	var naps []<-chan struct{}
	for _, name := range oddNames {
		pid, ended := s.nap()
		naps = append(naps, ended)
		_, err := a.Client.Processes.RegisterProcess(s.ctx, &pb.RegisterProcessRequest{Instance: name, Pid: pid})
		s.must(err)
		_, err = a.Client.Processes.StopProcess(s.ctx, &pb.StopProcessRequest{Instance: heldName(name)})
		s.must(err)
	}
	pid, _ := s.nap()
	for name := range impossibleNames {
		_, err := a.Client.Processes.RegisterProcess(s.ctx, &pb.RegisterProcessRequest{Instance: name, Pid: pid})
		s.isCode(err, codes.InvalidArgument)
		_, err = a.Client.Processes.StopProcess(s.ctx, &pb.StopProcessRequest{Instance: name})
		s.isCode(err, codes.InvalidArgument)
	}
	s.nothingOutside(a)

	// The next agent knows all of them again.
	s.must(a.Leave())
	a = s.again("down/below/machine")
	answer, err := a.Client.Processes.ListProcesses(s.ctx, &pb.ListProcessesRequest{})
	s.must(err)
	var known, held []string
	for _, p := range answer.GetProcesses() {
		if p.GetHeld() {
			held = append(held, p.GetInstance())
		} else {
			known = append(known, p.GetInstance())
		}
	}
	wanted, wantHeld := slices.Clone(oddNames), slices.Clone(oddNames)
	for n, name := range oddNames {
		wantHeld[n] = heldName(name)
	}
	slices.Sort(wanted)
	slices.Sort(wantHeld)
	if !slices.Equal(known, wanted) || !slices.Equal(held, wantHeld) {
		t.Errorf("after its restart the agent knows %q and holds %q, want %q and %q", known, held, wanted, wantHeld)
	}
	for n, name := range oddNames {
		_, err = a.Client.Processes.ReportDown(s.ctx, &pb.ReportDownRequest{Instance: name})
		s.must(err)
		<-naps[n]
	}
	s.until(func() string {
		if running := s.running(a); len(running) > 0 {
			return fmt.Sprintf("%d instances still have a process", len(running))
		}
		return ""
	})
	s.nothingOutside(a)
}

// heldName is an odd name as well, of an instance that has no process.
func heldName(name string) string { return name[:len(name)-1] + "?" }

// isCode makes sure that a call was refused like that.
func (s *stage) isCode(err error, code codes.Code) {
	s.t.Helper()
	if status.Code(err) != code {
		s.t.Errorf("got %v (%v), want %v", status.Code(err), err, code)
	}
}

// nap starts a process that is nobody's, until the test ends. The channel is
// closed when it has ended.
func (s *stage) nap() (pid int32, ended <-chan struct{}) {
	s.t.Helper()
	cmd := exec.Command("sleep", "1000")
	s.must(cmd.Start())
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = cmd.Wait() // a signal ends it
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-over
	})
	return int32(cmd.Process.Pid), over
}

// nothingOutside makes sure that an agent has written nothing but its state and
// its sockets, under names that any tool can cope with.
func (s *stage) nothingOutside(a *lab.Agent) {
	s.t.Helper()
	plain := regexp.MustCompile(`^[A-Za-z0-9_%~-][A-Za-z0-9._%~-]*$`)
	own := filepath.Join(a.Directory, ".allexmaster")
	s.must(filepath.WalkDir(s.lab.Dir, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // the record of a process that has ended
		}
		switch {
		case err != nil || d.IsDir() && path != own && strings.HasPrefix(own, path):
			return err
		case path == filepath.Join(s.lab.Dir, "lan"), path == filepath.Join(a.Directory, "modules"):
			return fs.SkipDir
		case slices.Contains([]string{filepath.Join(s.lab.Dir, "lan.log"), a.Log, a.Socket, a.Socket + ".lock", a.Socket + ".notify", filepath.Join(a.Directory, configFile), own}, path):
		case !strings.HasPrefix(path, own+"/"):
			s.t.Errorf("%s was written", path)
		case !plain.MatchString(d.Name()) || len(d.Name()) > 110:
			if !strings.HasSuffix(path, ".tmp") {
				s.t.Errorf("%q was written", path)
			}
		}
		return nil
	}))
}
