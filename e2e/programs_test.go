//go:build linux

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// programs are modules of programs that know nothing of the agent, with what one
// asks each of them, as soon as it is served and not a moment later.
var programs = map[string]func(s *stage, p table.Ports, times int) error{
	"nginx":      (*stage).askNginx,
	"redis":      (*stage).askRedis,
	"postgresql": (*stage).askPostgreSQL,
}

// Programs that nobody here wrote, as a distribution has them and with the module
// files that users copy: ready, killed, replaced on the same ports when nothing of
// the tree is left, and stopped gracefully.
func TestPrograms(t *testing.T) {
	t.Parallel()
	for _, needed := range []string{"/usr/sbin/nginx", "redis-server", "psql"} {
		if _, err := exec.LookPath(needed); err != nil {
			const missing = "what runs here is not there: apt-get install nginx redis-server postgresql"
			if os.Getenv("CI") != "" {
				t.Fatal(missing)
			}
			t.Skip(missing)
		}
	}
	s := newStage(t)
	var all []lab.Need
	for name := range programs {
		all = append(all, needs(1, name)...)
	}
	manager := s.lan(all...)
	o := s.observe(manager)
	a := s.programs(manager)
	s.served(o, len(programs))
	for name, ask := range programs {
		instance := name + "-0"
		s.must(ask(s, o.Services()[instance].Ports, 1))

		s.checkUsage(a, instance)

		before, ports, seen := lab.Tree(s.live(a, instance)), o.Services()[instance].Ports, len(o.Changes())
		before[0].Kill()
		s.must(o.AwaitAgain(s.ctx, seen, instance))
		if now := o.Services()[instance].Ports; now != ports {
			t.Errorf("%s was served on %v and is on %v", instance, ports, now)
		}
		for _, old := range before {
			if old.Alive() {
				t.Errorf("%s serves again, and there is still %v", instance, old)
			}
		}
		s.must(ask(s, ports, 2))
		if p := s.process(a, instance); p.GetFailures() > 1 {
			t.Errorf("its replacement did not come up at once: %v", p)
		}
		t.Logf("%s: %d processes killed", instance, len(before))
	}
	s.ok(a, "drain", "--wait")
	s.served(o, 0)
	for name := range programs {
		if p := s.process(a, name+"-0"); p.GetLastReason() != "the machine is drained (exit code 0)" {
			t.Errorf("%s ended like this: %s", name, p.GetLastReason())
		}
	}
}

// checkUsage holds what an agent says that an instance uses against what the system
// shows.
func (s *stage) checkUsage(a *lab.Agent, instance string) {
	s.t.Helper()
	tree := lab.Tree(s.live(a, instance))
	answer, err := a.Client.Processes.GetProcess(s.ctx, &pb.GetProcessRequest{Instance: instance, Usage: true})
	s.must(err)
	u := answer.GetProcess().GetUsage()
	tree = slices.DeleteFunc(tree, func(c lab.Child) bool { return !c.Alive() }) // those that were there all the time
	if u.GetCpuTime().AsDuration() <= 0 || u.GetMemoryBytes() < 1<<20 || int(u.GetProcesses()) < len(tree) || u.GetThreads() < u.GetProcesses() || u.GetDescriptors() < 3*u.GetProcesses() {
		s.t.Errorf("%s: %d processes use %v", instance, len(tree), u)
	}
	if all := s.running(a); all[instance].GetUsage() != nil {
		s.t.Errorf("what nobody asked for was measured: %v", all[instance])
	}
}

// live is the leader of an instance.
func (s *stage) live(a *lab.Agent, instance string) int {
	s.t.Helper()
	pid, err := a.ChildPID(s.ctx, instance)
	s.must(err)
	return pid
}

// programs starts an agent on the example modules, as their README says.
func (s *stage) programs(manager *lab.LANManager) *lab.Agent {
	s.t.Helper()
	s.humble() // so that other users find their files
	const examples = "../examples/modules"
	modules := map[string]lab.Module{}
	for name := range programs {
		text, err := os.ReadFile(filepath.Join(examples, name+".json"))
		s.must(err)
		module := lab.Module{}
		s.must(json.Unmarshal(text, &module))
		if os.Getuid() != 0 {
			delete(module, "user") // only root can change it
		}
		modules[name] = module
	}
	dir, err := s.lab.WriteAgent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules, Ports: 20})
	s.must(err)
	for name := range programs {
		s.must(os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(examples, name))))
	}
	if uid := postgres(s); uid >= 0 {
		s.must(os.Chown(filepath.Join(dir, "postgresql"), uid, -1))
	}
	return s.again("machine")
}

// postgres is the user of PostgreSQL; -1 if it is who runs the tests.
func postgres(s *stage) int {
	s.t.Helper()
	if os.Getuid() != 0 {
		return -1
	}
	u, err := user.Lookup("postgres")
	s.must(err)
	uid, err := strconv.Atoi(u.Uid)
	s.must(err)
	return uid
}

func (s *stage) askNginx(p table.Ports, _ int) error {
	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/up", p.HTTP))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && string(text) != "up\n" {
		err = fmt.Errorf("nginx says %q", text)
	}
	return err
}

func (s *stage) askRedis(p table.Ports, _ int) error {
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.TCP)))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "PING\r\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && line != "+PONG\r\n" {
		err = fmt.Errorf("redis says %q", line)
	}
	return err
}

// askPostgreSQL also sees that nothing is lost: the database counts how often it
// was asked.
func (s *stage) askPostgreSQL(p table.Ports, times int) error {
	socket := filepath.Join(s.lab.Dir, "machine", "postgresql", "postgresql-0")
	psql := exec.CommandContext(s.ctx, "psql", "--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set", "ON_ERROR_STOP=1",
		"--host", socket, "--port", strconv.Itoa(p.TCP), "--dbname", "postgres",
		"--command", "CREATE TABLE IF NOT EXISTS asked (at timestamp)", "--command", "INSERT INTO asked VALUES (now())",
		"--command", "SELECT count(*) FROM asked")
	psql.Dir = "/"
	if uid := postgres(s); uid >= 0 {
		psql.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	var complaints strings.Builder
	psql.Stderr = &complaints
	out, err := psql.Output()
	if err != nil {
		return fmt.Errorf("%w: %s", err, complaints.String())
	}
	if count := strings.TrimSpace(string(out)); count != strconv.Itoa(times) {
		return fmt.Errorf("asked %d times, PostgreSQL says %q", times, count)
	}
	return nil
}
