//go:build !windows

package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/agent/config"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// found are findings without what is good, each as one line.
func found(findings []finding) (all []string) {
	for _, f := range findings {
		if f.Grade != good {
			all = append(all, fmt.Sprintf("%s %s: %s | %s", f.Grade, f.About, f.What, f.Cure))
		}
	}
	return all
}

// wellStatus is that of an agent with which nothing is wrong.
func wellStatus() *pb.GetStatusResponse {
	return &pb.GetStatusResponse{
		Version: "1.2.3", Name: "alpha", Pid: int32(os.Getpid()), StartTime: before(time.Hour), Cgroups: true, Processes: 2, ServedHere: 2,
		Link: &pb.Link{Connected: true, LanManager: "10.0.0.1:23552", SeenAs: "10.0.0.7", SinceTime: before(time.Hour)},
	}
}

// What an agent says is judged, and each trouble comes with its cure.
func TestDoctorOfAnAgent(t *testing.T) {
	catalogue, err := module.Load(filepath.Dir(writeFile(t, `{"modulename": "nap", "command": ["sleep", "1000"]}`, t.TempDir(), "nap.json")))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		spoil func(*answer)
		want  []string
	}{
		{"well", func(*answer) {}, nil},
		{"upgrade", func(a *answer) { a.status.LastUpgrade = &pb.LastUpgrade{Id: "1", Problem: "it crashed"} },
			[]string{"WARN agent: its last upgrade failed: it crashed | mend that and `agentctl upgrade` again"}},
		{"half an answer", func(a *answer) { a.err = errors.New("the connection broke") },
			[]string{"FAIL agent: the connection broke | "}},
		{"warnings", func(a *answer) { a.status.Warnings = []string{"it is odd; make it even", "it is old"} },
			[]string{"WARN agent: it is odd | make it even", "WARN agent: it is old | "}},
		{"no LAN manager", func(a *answer) {
			a.status.Link = &pb.Link{Problem: "no LAN manager at 10.0.0.1:23552: connection refused", SinceTime: before(42 * time.Second)}
		}, []string{"FAIL LAN manager: NOT CONNECTED, for 42s: no LAN manager at 10.0.0.1:23552: connection refused | " + lanManagerCure}},
		{"refused", func(a *answer) { a.status.Link = &pb.Link{Problem: "it refused us; show a token"} },
			[]string{"FAIL LAN manager: NOT CONNECTED: it refused us | show a token"}},
		{"stranger", func(a *answer) {
			a.leases = []*pb.PortLease{
				{Port: 15000, Instance: "echo", Listener: pb.PortListener_PORT_LISTENER_OURS},
				{Port: 16000, Instance: "echo", Listener: pb.PortListener_PORT_LISTENER_STRANGER, Detail: "held by pid 5 (thief)"},
				{Port: 17000, Instance: "echo", Listener: pb.PortListener_PORT_LISTENER_NOBODY, Detail: "it listens on 80"},
				{Port: 17001, Instance: "near", Listener: pb.PortListener_PORT_LISTENER_OURS, Detail: "nobody meets it; have it listen on all addresses"},
			}
		}, []string{
			"FAIL ports: port 16000 of \"echo\": held by pid 5 (thief) | end that program, or `agentctl restart echo` for another port",
			"WARN ports: port 17000 of \"echo\": it listens on 80 | have the process listen where its environment says",
			"WARN ports: port 17001 of \"near\": nobody meets it | have it listen on all addresses",
		}},
		{"no cgroups", func(a *answer) { a.status.Cgroups = false }, found([]finding{cgroups(&pb.GetStatusResponse{})})},
		{"too many processes", func(a *answer) { a.status.MaxProcesses = 1 << 30 }, found([]finding{descriptors(1<<30, "maxprocesses", os.Getpid())})},
		{"drained", func(a *answer) { a.status.Drained = true },
			[]string{"WARN serving: this machine is drained: nothing is served here | `agentctl resume` when it may serve again"}},
		{"crash loop", func(a *answer) {
			crashes := func(name string) *pb.Process {
				return &pb.Process{Instance: name, Failures: 7, CrashLoop: true, LastReason: "it ended by itself (exit code 3)", LastExit: &pb.ExitStatus{}}
			}
			running := crashes("runs")
			running.Pid = 4711
			a.processes = []*pb.Process{
				{Instance: "well", Failures: 1},
				crashes("waits"), crashes("unneeded"), running, crashes("held"), crashes("elsewhere"),
			}
			a.needs = []*pb.NeedDecision{
				{Need: &pb.Need{Instance: "waits"}, Decision: pb.Decision_DECISION_BACKOFF},
				{Need: &pb.Need{Instance: "held"}, Decision: pb.Decision_DECISION_HELD},
				{Need: &pb.Need{Instance: "elsewhere"}, Decision: pb.Decision_DECISION_SERVED_ELSEWHERE},
			}
		}, []string{
			"FAIL serving: \"waits\" is in a crash loop: it has ended 7 times too soon, last: it ended by itself (exit code 3)" +
				" | see `agentctl logs waits`, mend it, and `agentctl start waits`",
			"FAIL serving: \"runs\" is in a crash loop: it has ended 7 times too soon, last: it ended by itself (exit code 3)" +
				" | see `agentctl logs runs`, mend it, and `agentctl start runs`",
			"WARN serving: \"elsewhere\" is in a crash loop: it has ended 7 times too soon, last: it ended by itself (exit code 3); another machine serves it now" +
				" | see `agentctl logs elsewhere`, mend it, and `agentctl start elsewhere`",
			"WARN serving: \"held\" is held on this machine | `agentctl start held` when it may run here again",
		}},
		{"failing", func(a *answer) {
			a.processes = []*pb.Process{
				{Instance: "crashed", Failures: 1, LastReason: "it ended by itself (exit code 3)", LastExit: &pb.ExitStatus{}},
				{Instance: "unreachable", Failures: 2, LastReason: "NO_PORTS_REACHABLE; it must listen on 10.0.0.7", LastExit: &pb.ExitStatus{}},
				{Instance: "unstarted", Failures: 2, LastReason: "its log file can not be opened; let the agent write there"},
				{Instance: "mended", Failures: 1, LastExit: &pb.ExitStatus{}},
				{Instance: "ill", Pid: 5, State: pb.ProcessState_PROCESS_STATE_WITHDRAWN, Reason: "not well: HTTP 503"},
			}
			a.needs = []*pb.NeedDecision{
				{Need: &pb.Need{Instance: "crashed"}, Decision: pb.Decision_DECISION_BACKOFF},
				{Need: &pb.Need{Instance: "unreachable"}, Decision: pb.Decision_DECISION_STARTING},
				{Need: &pb.Need{Instance: "unstarted"}, Decision: pb.Decision_DECISION_BID},
				{Need: &pb.Need{Instance: "mended"}, Decision: pb.Decision_DECISION_SERVED_HERE},
				{Need: &pb.Need{Instance: "ill"}, Decision: pb.Decision_DECISION_STARTING},
				{Need: &pb.Need{Instance: "new"}, Decision: pb.Decision_DECISION_STARTING},
				{Need: &pb.Need{Instance: "refused"}, Decision: pb.Decision_DECISION_BACKOFF, Detail: "the last offer led to nothing: no answer"},
			}
		}, []string{
			"WARN serving: \"ill\" is withdrawn, pid 5 runs and is not offered: not well: HTTP 503 | see `agentctl logs ill` why, and mend it; a process that did not withdraw itself comes back when it is well",
			"WARN serving: \"crashed\" is not served: it has failed 1 time in a row, last: it ended by itself (exit code 3) | see `agentctl logs crashed` and mend it",
			"WARN serving: \"unreachable\" is not served: it has failed 2 times in a row, last: NO_PORTS_REACHABLE; it must listen on 10.0.0.7 | see `agentctl logs unreachable` and mend it",
			"WARN serving: \"unstarted\" is not served: it has failed 2 times in a row, last: its log file can not be opened | let the agent write there",
			"WARN serving: \"refused\" is not served: the last offer led to nothing: no answer | the agent offers it again by itself; `agentctl needs` tells when",
		}},
		{"no descriptors", func(a *answer) {
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				p := &pb.Process{Instance: name, Failures: 2, LastReason: "\"/bin/x\" can not be started: " + process.LimitOfFiles + "; raise LimitNOFILE="}
				p.CrashLoop = name < "c"
				a.processes = append(a.processes, p)
				a.needs = append(a.needs, &pb.NeedDecision{Need: &pb.Need{Instance: name}, Decision: pb.Decision_DECISION_BACKOFF})
			}
		}, found([]finding{starvation([]string{"a", "b", "c", "d", "e"}, os.Getpid())})},
		{"no modules", func(a *answer) {
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				a.needs = append(a.needs, &pb.NeedDecision{Need: &pb.Need{Instance: name, Module: "nab"}, Decision: pb.Decision_DECISION_NOT_CATALOGUED})
			}
		}, []string{"WARN serving: 5 open needs have no module here: \"a\" (is module \"nap\" meant?), \"b\" (is module \"nap\" meant?), \"c\" (is module \"nap\" meant?) and 2 more" +
			" | add their modules, which `agentctl needs` names, and call `agentctl reload`; if they are for other machines, see why those do not serve them"}},
		{"needs", func(a *answer) {
			a.needs = []*pb.NeedDecision{
				{Need: &pb.Need{Instance: "here"}, Decision: pb.Decision_DECISION_SERVED_HERE},
				{Need: &pb.Need{Instance: "other"}, Decision: pb.Decision_DECISION_NOT_CATALOGUED, Detail: "no module \"far\" here; add it"},
				{Need: &pb.Need{Instance: "new", Module: "nap"}, Decision: pb.Decision_DECISION_NOT_CATALOGUED, Detail: "no module \"nap\" here"},
				{Need: &pb.Need{Instance: "held"}, Decision: pb.Decision_DECISION_HELD},
				{Need: &pb.Need{Instance: "fixed"}, Decision: pb.Decision_DECISION_PORT_TAKEN, Detail: "another program has http port 80; end it"},
			}
		}, []string{
			"WARN serving: \"new\" is not served here, though the files have its module: no module \"nap\" here" +
				" | `agentctl reload`, if the module is younger than the agent; else mend what it says",
			"WARN serving: \"held\" is held on this machine | `agentctl start held` when it may run here again",
			"WARN serving: \"fixed\" can not be served here: another program has http port 80 | end it",
			"WARN serving: \"other\" is not served: no module \"far\" here | add it",
		}},
	} {
		a := answer{status: wellStatus(), now: moment}
		test.spoil(&a)
		all := append(a.answers("/run/a.sock"), a.warnings(files{})...)
		all = append(all, a.link())
		all = append(all, ports(a, files{})...)
		all = append(all, cgroups(a.status), limits(a, files{}))
		all = append(all, a.serving(catalogue)...)
		if diff := cmp.Diff(test.want, found(all)); diff != "" {
			t.Errorf("%s, -want +got:\n%s", test.name, diff)
		}
	}
}

// A warning that the doctor has found by itself is told once.
func TestDoctorTellsOnce(t *testing.T) {
	f := files{found: true}
	f.config.PortRanges[0] = port.Range{Protocol: port.TCP, Start: 1, Size: 65535}
	a := answer{status: wellStatus(), now: moment}
	a.status.Warnings = append(port.Check(f.config.PortRanges[:]...), "it is old")
	if got := found(a.warnings(f)); len(got) != 1 || got[0] != "WARN agent: it is old | " {
		t.Errorf("%q", got)
	}
}

// What is known is told while the agent lets wait for the rest, and who it is that
// does not answer.
func TestDoctorOfAHungAgent(t *testing.T) {
	pid := os.Getpid()
	address := serve(t, &fake{hang: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}})
	reader, writer := io.Pipe()
	ended := make(chan int)
	go func() {
		code := run(t.Context(), moment, []string{"doctor", "--address", address, "--timeout", "1s"}, writer, io.Discard)
		writer.Close()
		ended <- code
	}()
	lines := bufio.NewReader(reader)
	first, err := lines.ReadString('\n') // without which it does not go on
	rest, err2 := io.ReadAll(lines)
	if code := <-ended; err != nil || err2 != nil || code != exitFailed {
		t.Errorf("exit code %d, %v, %v", code, err, err2)
	}
	if runtime.GOOS == "linux" {
		if want := fmt.Sprintf("OK    socket         %s is served by process %d of uid %d\n", address, pid, os.Getuid()); first != want {
			t.Errorf("%q, want %q", first, want)
		}
		if want := fmt.Sprintf("FAIL  agent          process %d has not answered within 1s\n", pid); !strings.HasPrefix(string(rest), want) || strings.Contains(string(rest), "agentctl doctor") {
			t.Errorf("%q, want %q and no advice to ask the doctor", rest, want)
		}
	}
}

// The files are those of the agent if they are not where the doctor is.
func TestDoctorFindsTheFiles(t *testing.T) {
	dir := t.TempDir()
	file := writeFile(t, `{}`, dir, config.FileName)
	status := wellStatus()
	status.Directory = dir
	t.Chdir(t.TempDir())
	_, stdout, _ := agentctl(t, "doctor", "--address", serve(t, &fake{status: status}))
	if !strings.Contains(stdout, "OK    configuration  "+file) || strings.Contains(stdout, "was not looked at") {
		t.Error(stdout)
	}
}

// A state directory that no agent could have is told before one tries.
func TestDoctorOfTheState(t *testing.T) {
	plain, open := writeFile(t, "", t.TempDir(), "state"), t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	here := server{os.Getpid(), os.Getuid()}
	other := server{os.Getpid(), os.Getuid() + 1}
	for _, test := range []struct {
		name, dir string
		server    server
		user      string
		want      string
	}{
		{"file", plain, server{}, "", "FAIL state: " + plain + " is no directory | move it away, or name another one in statedirectory"},
		{"everybody's", open, here, "", "FAIL state: everybody may write into " + open + " | name another directory, or take the right away with chmod o-w"},
		{"of another", t.TempDir(), other, "", "FAIL state: "},
		{"of another, as is said", t.TempDir(), server{}, fmt.Sprint(other.uid), "FAIL state: "},
		{"of whoever asks", t.TempDir(), server{}, "", ""},
	} {
		r := report{commandLine: &commandLine{agentUser: test.user}}
		got := strings.Join(found([]finding{r.state(test.dir, answer{server: test.server})}), "\n")
		if test.want == "" && got != "" || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	if os.Getuid() != 0 {
		return
	}
	theirs := t.TempDir()
	if err := os.Chown(theirs, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	r := report{commandLine: &commandLine{}}
	if f := r.state(theirs, answer{}); f.Grade != warn || !strings.Contains(f.Cure, "--agent-user") {
		t.Errorf("of another, and nobody knows whose the agent is: %+v", f)
	}
}

// What lies where an agent should be is named.
func TestDoctorOfASocket(t *testing.T) {
	dir := t.TempDir()
	stale, plain := filepath.Join(dir, "stale"), filepath.Join(dir, "plain")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(l.Close(), os.WriteFile(stale+".lock", []byte("4711\n"), 0o600), os.WriteFile(plain, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for socket, want := range map[string]string{
		stale:                     fmt.Sprintf("FAIL  socket         %s was left behind by an agent of uid %d that is gone, process 4711\n", stale, os.Getuid()),
		plain:                     "FAIL  socket         " + plain + " is not a socket\n",
		filepath.Join(dir, "not"): "there is no such socket\n",
	} {
		code, stdout, stderr := agentctl(t, "doctor", "--address", socket)
		if code != exitFailed || !strings.Contains(stdout, want) || !strings.Contains(stdout, "what to do: ") || stderr != "agentctl: not all is well: 1 failure\n" {
			t.Errorf("%s: exit code %d, %s%s", socket, code, stdout, stderr)
		}
	}
	if os.Getuid() == 0 {
		_, stdout, _ := agentctl(t, "doctor", "--address", startSquatter(t))
		if !strings.Contains(stdout, "FAIL  socket") || !strings.Contains(stdout, "is served by uid 65534") {
			t.Errorf("a stranger's: %s", stdout)
		}
	}
}

// The answer for programs has the same findings.
// On a terminal a text goes on below itself; elsewhere it is one line.
func TestDoctorBreaksLines(t *testing.T) {
	f := finding{warn, aboutPorts, "others listen in the range", "move them, or the range"}
	for width, want := range map[int]string{
		0:  "WARN  ports          others listen in the range\n                     what to do: move them, or the range\n",
		45: "WARN  ports          others listen in the\n                     range\n                     what to do: move them,\n                     or the range\n",
		30: "WARN  ports          others listen in the range\n                     what to do: move them, or the range\n",
	} {
		var text strings.Builder
		f.print(&text, width)
		if diff := cmp.Diff(want, text.String()); diff != "" {
			t.Errorf("%d columns (-want +got):\n%s", width, diff)
		}
	}
	var text strings.Builder
	finding{fail, aboutAgent, "its last upgrade failed: a.json: odd\nb.json:\todd", ""}.print(&text, 0)
	want := "FAIL  agent          its last upgrade failed: a.json: odd\n                     b.json:\\todd\n"
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Errorf("several lines (-want +got):\n%s", diff)
	}
}

func TestDoctorInJSON(t *testing.T) {
	code, stdout, _ := agentctl(t, "doctor", "-o", "json", "--address", serve(t, &fake{status: wellStatus()}))
	var answer struct{ Findings []map[string]string }
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil || len(answer.Findings) == 0 {
		t.Fatalf("%v: %s", err, stdout)
	}
	for _, f := range answer.Findings {
		if f["grade"] == "" || f["about"] == "" || f["what"] == "" || f["grade"] != "OK" && f["cure"] == "" {
			t.Errorf("%v", f)
		}
	}
	if code != exitFailed { // the fake agent has a process in a crash loop
		t.Errorf("exit code %d: %s", code, stdout)
	}
}

// writeFile makes a file and the directories on the way to it.
func writeFile(t *testing.T, text string, path ...string) string {
	t.Helper()
	file := filepath.Join(path...)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	return file
}

// Every mistake of every file is told, with its place.
func TestDoctorOfFiles(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(program))
	const goodModule = `{"modulename": "sleep", "command": ["sleep", "1000"]}`
	for _, test := range []struct {
		name, config, module string
		named                bool
		want                 []string
		found                bool
	}{
		{"well", `{}`, goodModule, true, nil, true},
		{"no module", `{}`, "", true, []string{"WARN modules: there is none in DIR/modules, so that nothing is served here | write one; the README shows how"}, true},
		{"elsewhere", "", goodModule, false, []string{"WARN configuration: was not looked at: there is no DIR/allexmasterconfig.json | name the directory of agentd with --directory"}, false},
		{"none yet", "", goodModule, true, []string{"WARN configuration: there is no DIR/allexmasterconfig.json, and agentd writes the default one when it starts" +
			" | start agentd there, or name the directory of agentd with --directory"}, true},
		{"mistakes", `{"maxprocesses": -1, "nam": "x"}`, `{"modulename": "gone", "command": ["/no/such/program"]}`, true, []string{
			`FAIL configuration: DIR/allexmasterconfig.json:1:18: maxprocesses`,
			`FAIL configuration: DIR/allexmasterconfig.json:1:`,
			`FAIL modules: DIR/modules/m.json:1:`,
		}, false},
		{"explained", `{}`, "{\"modulename\": \"m\",\n\"modulename\": \"m\", \"command\": [\"sleep\"], \"limits\": {\"cpu\": 0}}", true, []string{
			"FAIL modules: DIR/modules/m.json:2:1: modulename: duplicate key; the first is in line 1 | correct it there, and try `agentd --check --directory DIR`",
			"FAIL modules: DIR/modules/m.json:2:60: limits.cpu: found 0, allowed are 0.01 to 1024 processors, such as 0.5; seconds of processor time are limited by cputime | correct it there, and try `agentd --check --directory DIR`",
		}, true},
		{"other program", `{}`, fmt.Sprintf(`{"modulename": "sleep", "command": ["sleep", "1000"], "sha256": %q}`, strings.Repeat("ab", 32)), true, []string{
			"FAIL modules: DIR/modules/m.json: sha256: " + sleep + ": its checksum is " + sum + " and should be " + strings.Repeat("ab", 32) + " | install the right one, or correct sha256 in its module",
		}, true},
		{"right program", `{}`, fmt.Sprintf(`{"modulename": "sleep", "command": ["sleep", "1000"], "sha256": %q}`, sum), true, nil, true},
		{"broken", `{`, goodModule, true, []string{"FAIL configuration: DIR/allexmasterconfig.json:1:"}, false},
	} {
		dir := t.TempDir()
		if test.config != "" {
			writeFile(t, test.config, dir, config.FileName)
		}
		if test.module != "" {
			writeFile(t, test.module, dir, "modules", "m.json")
		}
		f := readFiles(dir, test.named)
		got := found(f.findings)
		for i := range got {
			got[i] = strings.ReplaceAll(got[i], dir, "DIR")
		}
		begins := len(got) == len(test.want)
		for i := 0; begins && i < len(got); i++ {
			begins = strings.HasPrefix(got[i], test.want[i])
		}
		if !begins || f.found != test.found {
			t.Errorf("%s: configuration %v, want %v; %s", test.name, f.found, test.found, cmp.Diff(test.want, got))
		}
	}
}

// Ranges that the system uses, and programs that listen in them, are told.
func TestDoctorOfPorts(t *testing.T) {
	f := files{found: true}
	f.config.PortRanges = [3]port.Range{{Protocol: port.TCP, Start: 1, Size: 1}, {Protocol: port.HTTP, Start: 1, Size: 65535}, {Protocol: port.WS, Start: 2, Size: 1}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f.config.StateDirectory = t.TempDir()
	got := found(ports(answer{}, f))
	if len(got) == 0 || !strings.HasPrefix(got[0], "WARN ports: the range http 1-65535 overlaps") || strings.HasSuffix(got[0], "| ") {
		t.Errorf("%q", got)
	}
	// There are strangers without an agent, too, as far as its records are to be had.
	strangers := func() bool {
		return slices.ContainsFunc(found(ports(answer{}, f)), func(line string) bool {
			return strings.HasPrefix(line, "WARN ports: other programs listen in the range http")
		})
	}
	if !strangers() {
		t.Errorf("nobody listens: %q", got)
	}
	if f.config.StateDirectory = writeFile(t, "", t.TempDir(), "file"); strangers() {
		t.Error("strangers without records")
	}

	at := func(numbers ...uint16) (all []process.Listener) {
		for _, n := range numbers {
			all = append(all, process.Listener{Address: netip.AddrPortFrom(netip.IPv4Unspecified(), n)})
		}
		return all
	}
	ranges := []port.Range{{Protocol: port.TCP, Start: 100, Size: 10}, {Protocol: port.HTTP, Start: 200, Size: 10}}
	leases := []*pb.PortLease{{Port: 100}, {Port: 200}}
	got = found(strangersIn(ranges, leases, at(99, 100, 110, 200, 209, 208, 208, 207, 206, 205, 204)))
	want := "WARN ports: other programs listen in the range http 200-209: on 204 205 206 207 208 and 1 more | "
	if len(got) != 1 || !strings.HasPrefix(got[0], want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Without an agent the LAN manager is looked for where the configuration says.
func TestDoctorOfTheLANManager(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var cfg config.Config
	cfg.LANManager.Protocol, cfg.LANManager.Address, cfg.LANManager.PortCorrection = "ws", "127.0.0.1", -20000
	if f := tryLANManager(t.Context(), cfg); f.Grade != fail || !strings.Contains(f.What, "127.0.0.1:3552") || !strings.Contains(f.What, "127.0.0.1:3451") {
		t.Errorf("nobody at both of its ports: %+v", f)
	}
	cfg.LANManager.PortCorrection = 0
	cfg.LANManager.Protocol, cfg.LANManager.Address, cfg.LANManager.Port = "ws", "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	l.Close()
	f := tryLANManager(t.Context(), cfg)
	if f.Grade != fail || !strings.Contains(f.What, "connection refused") || f.Cure != lanManagerCure {
		t.Errorf("nobody there: %+v", f)
	}
}

func TestDoctorOfTheDescriptors(t *testing.T) {
	if f := descriptors(1, "maxprocesses", os.Getpid()); f.Grade != good {
		t.Errorf("for one: %+v", f)
	}
	if f := descriptors(1<<40, "maxprocesses", os.Getpid()); f.Grade != warn || !strings.HasSuffix(f.Cure, "lower maxprocesses") {
		t.Errorf("for too many: %+v", f)
	}
	if f := descriptors(1, "maxprocesses", 1<<30); runtime.GOOS == "linux" && (f.Grade != warn || f.Cure == "") {
		t.Errorf("of nobody: %+v", f)
	}
}

// The subjects of the help are those of the findings.
func TestDoctorHelp(t *testing.T) {
	_, help, _ := agentctl(t, "doctor", "--help")
	for _, about := range []string{aboutSocket, aboutAgent, aboutLANManager, aboutConfiguration, aboutModules, aboutPorts,
		aboutCgroups, aboutLimits, aboutState, aboutClock, aboutServing} {
		if !slices.ContainsFunc(strings.Split(help, "\n"), func(line string) bool { return strings.HasPrefix(line, "  "+about+"  ") }) {
			t.Errorf("%s is not in the help:\n%s", about, help)
		}
	}
}

// Whose program the LAN manager is goes with it.
func TestDoctorKnowsTheLANManager(t *testing.T) {
	for kind, want := range map[pb.LanManagerKind]string{
		pb.LanManagerKind_LAN_MANAGER_KIND_UNSPECIFIED: "seen as 10.0.0.7",
		pb.LanManagerKind_LAN_MANAGER_KIND_OURS:        "it is that of this project",
		pb.LanManagerKind_LAN_MANAGER_KIND_ORIGINAL:    "with each new session",
	} {
		a := answer{status: wellStatus(), now: moment}
		a.status.Link.Kind = kind
		if f := a.link(); f.Grade != good || !strings.HasSuffix(f.What, want) {
			t.Errorf("%v: %+v", kind, f)
		}
	}
}
