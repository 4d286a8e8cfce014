package packaging_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	children = 4
	unit     = "machine-agent.service"
)

// What is on the machine before the package comes: a LAN manager with its needs,
// and a module for them.
var before = map[string]string{
	"/etc/systemd/system/lan.service": `[Service]
ExecStart=/usr/local/bin/lanmanager --directory /srv/lan
`,
	"/srv/lan/.allexlanmanager/needs": `[
{"instancename": "a", "modulename": "hello", "propertyhash": {}},
{"instancename": "b", "modulename": "hello", "propertyhash": {}},
{"instancename": "c", "modulename": "hello", "propertyhash": {}},
{"instancename": "passed", "modulename": "passed", "propertyhash": {}}
]`,
	"/etc/machine-agent/modules/hello.json": `{
"modulename": "hello", "command": ["/usr/local/bin/hello"], "ports": ["http"], "backoff": {"initial": "0s"}
}`,
	// Its socket can not be fetched back from the process: that is another user's, and
	// the agent may not trace it.
	"/etc/machine-agent/modules/passed.json": `{
"modulename": "passed", "command": ["/usr/local/bin/hello"], "ports": ["http"], "portmode": "passed", "ready": {"kind": "http"},
"user": "nobody", "backoff": {"initial": "0s"}
}`,
	"/etc/systemd/system/" + unit + ".d/untraced.conf": "[Service]\nCapabilityBoundingSet=~CAP_SYS_PTRACE\n",
}

// packages builds the deb as make package does, and what else the machine needs.
func packages(t *testing.T) (bin, deb string) {
	t.Helper()
	bin = t.TempDir()
	goRun := func(env []string, args ...string) {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = "..", append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %q: %v\n%s", args, err, out)
		}
	}
	goRun(nil, "build", "-trimpath", "-buildvcs=false", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", bin+"/", "./cmd/...", "./examples/...")
	arch, err := exec.Command("go", "env", "GOARCH").Output()
	if err != nil {
		t.Fatal(err)
	}
	goRun([]string{"BIN=" + bin, "VERSION=0.0.0+test", "GOARCH=" + strings.TrimSpace(string(arch))},
		"tool", "-modfile=tools/nfpm/go.mod", "nfpm", "package", "--config", "packaging/nfpm.yaml", "--packager", "deb", "--target", filepath.Join(bin, "machine-agent.deb"))
	return bin, "/machine-agent.deb"
}

// The whole life of the package: it comes, the unit is started again, killed and
// stuck with children running, and it goes and leaves nothing.
func TestPackage(t *testing.T) {
	bin, deb := packages(t)
	m := newMachine(t, before)
	for from, to := range map[string]string{
		"machine-agent.deb": deb, "hello": "/usr/local/bin/hello", "lanmanager": "/usr/local/bin/lanmanager",
	} {
		text, err := os.ReadFile(filepath.Join(bin, from))
		if err != nil {
			t.Fatal(err)
		}
		m.write(to, string(text))
	}
	m.run("systemctl", "start", "lan.service")
	m.run("dpkg", "--install", deb)
	first := m.served()
	if link := m.run("readlink", "/tmp/allexmachinemanager"); link != "/run/machine-agent/agent.sock" {
		t.Errorf("the old name of the socket leads to %s", link)
	}
	if out := m.run("agentctl", "--address", "unix:/tmp/allexmachinemanager", "status"); !strings.Contains(out, "127.0.0.1:23552") {
		t.Errorf("at the old name agentctl says\n%s", out)
	}
	if status := m.show("StatusText"); !strings.HasPrefix(status, strconv.Itoa(children)+" processes") && !strings.Contains(status, "LAN manager") {
		t.Errorf("the unit says %q", status)
	}
	m.checkChildren(first)
	socket := m.socket("passed")
	m.until("the service manager keeps a socket", func() bool { return m.show("NFileDescriptorStore") == "1" })

	m.upgraded("reload", first, func() { m.run("systemctl", "reload", unit) })
	m.upgraded("install again", first, func() { m.run("dpkg", "--install", deb) })
	m.outlive("restart", first, func() { m.run("systemctl", "restart", unit) })
	m.outlive("kill", first, func() { m.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", unit) })
	// Who waits at the socket that is passed on has been waiting through all of this.
	m.run("kill", "-9", strconv.Itoa(first["passed"]))
	m.until("a replacement", func() bool { p := m.processes(); return len(p) == children && p["passed"] != first["passed"] })
	if now := m.socket("passed"); now != socket {
		t.Errorf("the socket that is passed on is %s, it was %s", now, socket)
	}
	m.run("agentctl", "--address", "unix:/run/machine-agent/agent.sock", "stop", "passed")
	m.until("the service manager keeps no socket", func() bool { return m.show("NFileDescriptorStore") == "0" })
	m.run("agentctl", "--address", "unix:/run/machine-agent/agent.sock", "start", "passed")
	first = m.served()

	m.outlive("stop and start", first, func() {
		m.run("systemctl", "stop", unit)
		m.run("systemctl", "start", unit)
	})
	m.write("/etc/systemd/system/"+unit+".d/patience.conf", "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n")
	m.run("systemctl", "daemon-reload")
	m.outlive("restart with another watchdog", first, func() { m.run("systemctl", "restart", unit) })
	m.outlive("stuck", first, func() { m.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", unit) })

	// What ended while an agent was there is replaced, as ever.
	m.run("kill", "-9", strconv.Itoa(first["a"]))
	m.until("a replacement", func() bool { p := m.processes(); return len(p) == children && p["a"] != first["a"] })
	m.run("dpkg", "--remove", "machine-agent")
	if left := m.marked(); len(left) != 0 {
		t.Errorf("the package is removed, and there are the children %v", left)
	}
	if _, err := os.Stat(m.path("/etc/machine-agent/modules/hello.json")); err != nil {
		t.Errorf("removed without a purge, the configuration is gone: %v", err)
	}
	m.run("dpkg", "--purge", "machine-agent")
	m.checkNothingLeft()
}

// processes are the live processes as agentctl tells them; none if it does not.
func (m *machine) processes() map[string]int {
	out, err := m.try("agentctl", "--address", "unix:/run/machine-agent/agent.sock", "ps", "--output", "json")
	var answer struct {
		Processes []struct {
			Instance string
			PID      int
			Place    string
		}
	}
	if err != nil || json.Unmarshal([]byte(out), &answer) != nil {
		return nil
	}
	all := map[string]int{}
	for _, p := range answer.Processes {
		if p.PID != 0 && strings.HasSuffix(p.Place, "SERVED") {
			all[p.Instance] = p.PID
		}
	}
	return all
}

// served waits until all needs are.
func (m *machine) served() map[string]int {
	m.t.Helper()
	var all map[string]int
	m.until("all needs are served", func() bool { all = m.processes(); return len(all) == children })
	return all
}

// socket is the kernel's number of the socket that listens on the HTTP port of an
// instance, and of nothing else.
func (m *machine) socket(instance string) string {
	m.t.Helper()
	var ports struct {
		Leases []struct {
			Instance string
			Port     int
		}
	}
	if err := json.Unmarshal([]byte(m.run("agentctl", "--address", "unix:/run/machine-agent/agent.sock", "ports", "--output", "json")), &ports); err != nil {
		m.t.Fatal(err)
	}
	for _, l := range ports.Leases {
		if l.Instance != instance {
			continue
		}
		const state, listening, inode = 3, "0A", 9
		for line := range strings.Lines(m.run("cat", "/proc/net/tcp6")) {
			if f := strings.Fields(line); len(f) > inode && f[state] == listening && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", l.Port)) {
				return f[inode]
			}
		}
	}
	m.t.Fatalf("nobody listens on the port of %s", instance)
	return ""
}

func (m *machine) show(property string) string {
	return m.run("systemctl", "show", "--value", "--property", property, unit)
}

// outlive makes sure that another agent has the same children when what is done to
// the one before has been done, and no others.
func (m *machine) outlive(what string, first map[string]int, do func()) {
	m.t.Helper()
	pid := m.show("MainPID")
	do()
	m.until(what+": another agent", func() bool {
		now := m.show("MainPID")
		return now != pid && now != "0" && m.show("ActiveState") == "active"
	})
	m.same(what, first)
}

// upgraded makes sure that what is done has another agent in the same process.
func (m *machine) upgraded(what string, first map[string]int, do func()) {
	m.t.Helper()
	pid, before := m.show("MainPID"), m.lastUpgrade()
	do()
	if now := m.show("MainPID"); now != pid || m.show("ActiveState") != "active" {
		m.t.Errorf("%s: the agent is process %s, it was %s", what, now, pid)
	}
	if now := m.lastUpgrade(); now.ID == before.ID || now.Problem != "" {
		m.t.Errorf("%s: the last upgrade was %+v, and is %+v", what, before, now)
	}
	m.same(what, first)
}

type lastUpgrade struct{ ID, Problem string }

func (m *machine) lastUpgrade() lastUpgrade {
	m.t.Helper()
	var status struct{ LastUpgrade lastUpgrade }
	if err := json.Unmarshal([]byte(m.run("agentctl", "--address", "unix:/run/machine-agent/agent.sock", "status", "--output", "json")), &status); err != nil {
		m.t.Fatal(err)
	}
	return status.LastUpgrade
}

// same makes sure that there are the first children and no others.
func (m *machine) same(what string, first map[string]int) {
	m.t.Helper()
	if now := m.served(); !maps.Equal(now, first) {
		m.t.Errorf("%s: the processes are %v, they were %v", what, now, first)
	}
	if now := m.marked(); !slices.Equal(now, slices.Sorted(maps.Values(first))) {
		m.t.Errorf("%s: there are the children %v, the agent knows %v", what, now, first)
	}
}

// marked are the pids of all that carries our mark, by their environment.
func (m *machine) marked() []int {
	out := m.run("sh", "-c", `grep -lsz ^MACHINEAGENT_INSTANCE= /proc/[0-9]*/environ || true`)
	var all []int
	for _, name := range strings.Fields(out) {
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			all = append(all, pid)
		}
	}
	slices.Sort(all)
	return all
}

// checkChildren makes sure that every child has a cgroup of its own below the
// unit's, and nothing of what systemd tells the agent alone.
func (m *machine) checkChildren(all map[string]int) {
	m.t.Helper()
	for instance, pid := range all {
		text := m.run("cat", fmt.Sprintf("/proc/%d/cgroup", pid))
		_, path, _ := strings.Cut("\n"+text, "\n0::")
		if !strings.HasPrefix(path, m.show("ControlGroup")+"/machine-agent-") || filepath.Base(path) != "i-"+instance {
			m.t.Errorf("%s is in the cgroup %s", instance, path)
		}
		environment := m.run("cat", fmt.Sprintf("/proc/%d/environ", pid))
		for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_PID", "INVOCATION_ID"} {
			if strings.Contains("\x00"+environment, "\x00"+name+"=") {
				m.t.Errorf("%s has the agent's %s", instance, name)
			}
		}
	}
}

// checkNothingLeft makes sure that the package has gone with all that it made.
func (m *machine) checkNothingLeft() {
	m.t.Helper()
	for _, pattern := range []string{"/etc/machine-agent*", "/etc/systemd/system/*/machine-agent*", "/run/machine-agent*", "/tmp/allexmachinemanager",
		"/usr/bin/agentd", "/usr/bin/agentctl", "/usr/bin/lanmanager", "/usr/lib/*/machine-agent*", "/usr/lib/*/*/machine-agent*",
		"/usr/lib/machine-agent*", "/usr/share/doc/machine-agent*", "/var/lib/machine-agent*", "/var/lib/dpkg/info/machine-agent*"} {
		left, err := filepath.Glob(m.path(pattern))
		if err != nil {
			m.t.Fatal(err)
		}
		for _, name := range left {
			m.t.Errorf("%s is left", strings.TrimPrefix(name, m.path("")))
		}
	}
}
