//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/client"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// devLANManager is where the LAN manager of agentd --dev listens.
const devLANManager = "127.0.0.1:23552"

// agentd --dev is a whole LAN on one machine, at the addresses at which people
// look, and leaves nothing behind on Ctrl-C. No other test may use these
// addresses.
func TestDev(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	if reason := devPossible(); reason != "" {
		t.Fatalf("agentd --dev can not be tried while %s; end it and test again", reason)
	}
	l, err := net.Listen("tcp", devLANManager)
	s.must(err)
	s.devRefused("agentd: --dev needs the address " + devLANManager + ": listen tcp " + devLANManager +
		": bind: address already in use; stop what is there, perhaps another LAN manager\n")
	l.Close()
	if reason := devPossible(); reason != "" {
		t.Fatalf("it was refused, and %s", reason)
	}

	examples := []string{"Hello"}
	if _, err := exec.LookPath("python3"); err == nil {
		examples = []string{"Files", "Hello"}
	}
	d := s.startDev()
	d.serves(examples)
	children := d.children()
	if len(children) != len(examples) {
		t.Errorf("the children are %v, want %d", children, len(examples))
	}
	s.devRefused(fmt.Sprintf("agentd: socket %s: process %d of uid %d serves it; end that process, "+
		"or set \"socket\" in the agent's configuration to another path\n", defaultSocket, d.cmd.Process.Pid, os.Geteuid()))
	dir := d.directory()

	d.interrupt()
	if !d.cmd.ProcessState.Success() {
		t.Errorf("agentd --dev ended with %v", d.cmd.ProcessState)
	}
	for _, path := range []string{dir, defaultSocket, defaultSocket + ".lock"} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left", path)
		}
	}
	if left := slices.DeleteFunc(children, func(pid int) bool { return syscall.Kill(pid, 0) != nil }); len(left) > 0 {
		t.Errorf("the processes %v are left", left)
	}
	if e := s.ctl("ps"); e.code != 3 {
		t.Errorf("agentctl ps ends with %d, want 3: %+v", e.code, e)
	}
	if reason := devPossible(); reason != "" {
		t.Error("afterwards ", reason)
	}
}

// dev is a running agentd --dev.
type dev struct {
	*stage
	cmd  *exec.Cmd
	log  string
	over chan struct{} // closed when it has ended
}

func (s *stage) startDev() *dev {
	s.t.Helper()
	d := &dev{stage: s, cmd: exec.Command(filepath.Join(s.lab.Bin, "agentd"), "--dev"), log: filepath.Join(s.lab.Dir, "dev.log"), over: make(chan struct{})}
	out, err := os.Create(d.log)
	s.must(err)
	defer out.Close()
	d.cmd.Stdout, d.cmd.Stderr = out, out
	s.must(d.cmd.Start())
	go func() {
		_ = d.cmd.Wait() // ProcessState says how it was
		close(d.over)
	}()
	s.t.Cleanup(d.interrupt)
	return d
}

// interrupt has it stop everything, and waits for its end.
func (d *dev) interrupt() {
	_ = d.cmd.Process.Signal(os.Interrupt) // it may have ended
	select {
	case <-d.over:
	case <-time.After(time.Minute):
		d.t.Error("agentd --dev does not end on Ctrl-C")
		_ = d.cmd.Process.Kill()
		<-d.over
	}
}

// serves waits until agentctl, which was told no address, shows that exactly
// those needs are served.
func (d *dev) serves(examples []string) {
	d.t.Helper()
	d.until(func() string {
		select {
		case <-d.over:
			d.t.Fatalf("agentd --dev ended: %v", d.cmd.ProcessState)
		default:
		}
		e := d.ctl("needs")
		if lines := strings.Count(e.out, "\n"); e.code != 0 || lines != 1+len(examples) {
			return fmt.Sprintf("agentctl needs: %+v", e)
		}
		for _, instance := range examples {
			if !regexp.MustCompile(`(?m)^` + instance + ` +\S+ +SERVED_HERE +127\.0\.0\.1 `).MatchString(e.out) {
				return fmt.Sprintf("%s is not served:\n%s", instance, e.out)
			}
		}
		return ""
	})
}

// children are the processes, which all have a page to show.
func (d *dev) children() (pids []int) {
	d.t.Helper()
	var processes pb.ListProcessesResponse
	d.fromJSON(d.ctl("ps", "-o", "json").out, &processes)
	for _, p := range processes.GetProcesses() {
		pids = append(pids, int(p.GetPid()))
		d.fetch(fmt.Sprintf("http://127.0.0.1:%d/", p.GetPorts().GetHttp()))
	}
	return pids
}

// directory is where it lives, as it says itself.
func (d *dev) directory() string {
	d.t.Helper()
	said, err := os.ReadFile(d.log)
	d.must(err)
	found := regexp.MustCompile(`agentd --dev in (\S+)`).FindSubmatch(said)
	if found == nil {
		d.t.Fatalf("agentd --dev does not say where it is:\n%s", said)
	}
	return string(found[1])
}

// devRefused makes sure that agentd --dev ends by itself with those last words,
// and leaves no directory.
func (s *stage) devRefused(words string) {
	s.t.Helper()
	tmp := filepath.Join(s.lab.Dir, "tmp")
	s.must(os.MkdirAll(tmp, 0o755))
	cmd := exec.CommandContext(s.ctx, filepath.Join(s.lab.Bin, "agentd"), "--dev")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	if e := s.end(cmd); e.code != refused || !strings.Contains(e.problems, words) {
		s.t.Errorf("agentd --dev ended with %d, want %d and %q:\n%s", e.code, refused, words, e.problems)
	}
	if left, err := os.ReadDir(tmp); len(left) > 0 || err != nil {
		s.t.Errorf("agentd --dev left %v, %v", left, err)
	}
}

// devPossible says what keeps agentd --dev from its addresses; empty if nothing
// does.
func devPossible() string {
	if _, err := os.Lstat(defaultSocket); !os.IsNotExist(err) {
		return defaultSocket + " is there: an agent of this machine seems to run"
	}
	l, err := net.Listen("tcp", devLANManager)
	if err != nil {
		return fmt.Sprintf("%s is not free (%v)", devLANManager, err)
	}
	l.Close()
	return ""
}

// ctl runs agentctl as one who was told no address.
func (s *stage) ctl(args ...string) end {
	s.t.Helper()
	cmd := exec.CommandContext(s.ctx, filepath.Join(s.lab.Bin, "agentctl"), args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, client.AddressVariable+"=") })
	return s.end(cmd)
}

// fetch gets a page.
func (s *stage) fetch(url string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.ctx, http.MethodGet, url, nil)
	s.must(err)
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	s.must(err)
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	s.must(err)
	if answer.StatusCode != http.StatusOK {
		s.t.Errorf("%s: %s", url, answer.Status)
	}
}
