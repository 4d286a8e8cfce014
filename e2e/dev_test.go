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

	"google.golang.org/protobuf/encoding/protojson"

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
	s.devRefused("agentd: the LAN manager can not listen on " + devLANManager + ": listen tcp " + devLANManager +
		": bind: address already in use; stop what is there, or choose another address\n")
	l.Close()

	log := filepath.Join(s.lab.Dir, "dev.log")
	out, err := os.Create(log)
	s.must(err)
	defer out.Close()
	cmd := exec.Command(filepath.Join(s.lab.Bin, "agentd"), "--dev")
	cmd.Stdout, cmd.Stderr = out, out
	s.must(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	over := false
	defer func() {
		if !over { // its children go with it
			_ = cmd.Process.Signal(os.Interrupt)
			<-ended
		}
	}()

	want := []string{"Hello"}
	if _, err := exec.LookPath("python3"); err == nil {
		want = []string{"Files", "Hello"}
	}
	var needs string
	s.until(func() string {
		select {
		case err := <-ended:
			over = true
			t.Fatalf("agentd --dev ended: %v", err)
		default:
		}
		var e end
		if e = s.ctl("needs"); e.code == 0 {
			needs = e.out
		}
		for _, instance := range want {
			if !regexp.MustCompile(`(?m)^` + instance + ` +\S+ +SERVED_HERE +127\.0\.0\.1 `).MatchString(e.out) {
				return fmt.Sprintf("%s is not served: %+v", instance, e)
			}
		}
		return ""
	})
	if lines := strings.Count(needs, "\n"); lines != 1+len(want) {
		t.Errorf("agentctl needs has %d lines, want %d:\n%s", lines, 1+len(want), needs)
	}
	var processes pb.ListProcessesResponse
	s.must(protojson.Unmarshal([]byte(s.ctl("ps", "-o", "json").out), &processes))
	var children []int
	for _, p := range processes.GetProcesses() {
		children = append(children, int(p.GetPid()))
		s.fetch(fmt.Sprintf("http://127.0.0.1:%d/", p.GetPorts().GetHttp()))
	}
	s.devRefused(fmt.Sprintf("agentd: socket %s: process %d of uid %d serves it; end that process, or set \"socket\" in the agent's configuration to another path\n",
		defaultSocket, cmd.Process.Pid, os.Geteuid()))
	said, err := os.ReadFile(log)
	s.must(err)
	found := regexp.MustCompile(`agentd --dev in (\S+)`).FindStringSubmatch(string(said))
	if found == nil || len(children) != len(want) {
		t.Fatalf("agentd --dev has the children %v and said:\n%s", children, said)
	}

	s.must(cmd.Process.Signal(os.Interrupt))
	select {
	case err = <-ended:
		over = true
	case <-s.ctx.Done():
		t.Fatal("agentd --dev does not end")
	}
	if err != nil {
		t.Errorf("agentd --dev ended with %v", err)
	}
	for _, path := range []string{found[1], defaultSocket, defaultSocket + ".lock"} {
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

// devRefused makes sure that agentd --dev ends by itself with those last words,
// and leaves no directory.
func (s *stage) devRefused(words string) {
	s.t.Helper()
	tmp := filepath.Join(s.lab.Dir, "tmp")
	s.must(os.MkdirAll(tmp, 0o755))
	cmd := exec.CommandContext(s.ctx, filepath.Join(s.lab.Bin, "agentd"), "--dev")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	if e := s.end(cmd); e.code != refused || !strings.HasSuffix(e.problems, words) {
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
