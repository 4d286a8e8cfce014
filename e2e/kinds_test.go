//go:build linux

package e2e

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// checked is a server that answers every kind of check as it is told to, by its
// page /be: "well", "ill", "slow" (it takes a connection and never answers), or
// "gone" (it ends its servers and lives on); it begins as checkedBe says. The page
// tells how often it has been asked.
type checked struct {
	healthpb.UnimplementedHealthServer
	be    atomic.Value // a string
	asked atomic.Int32 // how often
	told  chan string
}

// checkedBe is how a checked is at the beginning; it is well if that is empty.
const checkedBe = "E2E_BE"

// checkedRole is a checked; with the argument ask it is the command that asks one.
func checkedRole() error {
	if len(os.Args) > 1 && os.Args[1] == "ask" {
		return askChecked()
	}
	c := &checked{told: make(chan string, 8)}
	c.be.Store(cmp.Or(os.Getenv(checkedBe), "well"))
	var listeners []net.Listener
	for _, server := range []struct {
		variable string
		serve    func(net.Listener) error
	}{
		{"TCP_PORT", c.serveTCP},
		{"WS_PORT", func(l net.Listener) error { return http.Serve(l, http.HandlerFunc(c.feed)) }},
		{"HTTP_PORT", func(l net.Listener) error { return http.Serve(l, http.HandlerFunc(c.page)) }},
	} {
		l, err := net.Listen("tcp", ":"+os.Getenv(server.variable))
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
		go server.serve(l)
	}
	for be := range c.told {
		c.be.Store(be)
		for _, l := range listeners {
			if be == "gone" {
				l.Close()
			}
		}
	}
	return nil
}

func (c *checked) is(state string) bool { return c.be.Load() == state }

// answer waits if it is slow, and is an error if it is not well.
func (c *checked) answer(ctx context.Context) error {
	c.asked.Add(1)
	if c.is("slow") {
		<-ctx.Done()
	}
	if !c.is("well") {
		return errors.New("it feels " + c.be.Load().(string))
	}
	return nil
}

func (c *checked) page(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/be" {
		if state := r.FormValue("state"); state != "" {
			c.told <- state
		}
		fmt.Fprint(w, c.asked.Load())
		return
	}
	if err := c.answer(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

func (c *checked) feed(w http.ResponseWriter, r *http.Request) {
	if err := c.answer(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil); err == nil {
		_, _, _ = conn.ReadMessage()
		conn.Close()
	}
}

// Check implements grpc.health.v1.
func (c *checked) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if r.GetService() != "a.B" {
		return nil, status.Error(codes.NotFound, "it knows no service of that name")
	}
	answer := &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}
	if c.answer(ctx) != nil {
		answer.Status = healthpb.HealthCheckResponse_NOT_SERVING
	}
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return answer, nil
}

// serveTCP is a gRPC server, or one that answers a word a line.
func (c *checked) serveTCP(l net.Listener) error {
	if os.Getenv("E2E_GRPC") != "" {
		s := grpc.NewServer()
		healthpb.RegisterHealthServer(s, c)
		return s.Serve(l)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
				return
			}
			if c.is("slow") {
				_, _ = io.Copy(io.Discard, conn)
			}
			fmt.Fprintf(conn, "+%s\r\n", c.be.Load())
		}()
	}
}

// noLastSleep has a program that ends with the race detector end at once.
const noLastSleep = "atexit_sleep_ms=0"

// askChecked says what the page says.
func askChecked() error {
	answer, err := http.Get("http://127.0.0.1:" + os.Getenv("HTTP_PORT") + "/")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(text)))
	}
	return err
}

// checkeds are modules of the role checked, each with a check of its own kind.
func (s *stage) checkeds() map[string]lab.Module {
	s.t.Helper()
	self, err := os.Executable()
	s.must(err)
	modules := map[string]lab.Module{}
	for name, check := range map[string]map[string]any{
		"grpc":    {"kind": "grpc", "service": "a.B"},
		"tcp":     {"kind": "tcp", "send": "how are you\n", "expect": `^\+well\r\n$`},
		"ws":      {"kind": "ws", "path": "/feed"},
		"http":    {"kind": "http"},
		"port":    {"kind": "port", "port": "http"},
		"command": {"kind": "command", "command": []string{"sh", "-c", "sleep 1000 & " + self + " ask"}},
	} {
		check["interval"], check["timeout"], check["failures"], check["successes"] = "1s", "1s", 2, 2
		modules[name] = lab.Module{
			"modulename": name, "command": []string{self}, "health": map[string]any{"ready": check},
			"environment": map[string]string{roleVariable: "checked", "GORACE": noLastSleep},
		}
	}
	modules["grpc"]["ready"] = map[string]string{"kind": "grpc", "service": "a.B"}
	modules["grpc"]["environment"] = map[string]string{roleVariable: "checked", "E2E_GRPC": "1", "GORACE": noLastSleep}
	return modules
}

// be has the process of an instance of checkeds be so, if state is not empty, and
// tells how often it has been asked.
func (s *stage) be(a *lab.Agent, instance, state string) (asked int) {
	s.t.Helper()
	port := s.process(a, instance).GetPorts().GetHttp()
	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/be?state=%s", port, state))
	s.must(err)
	defer answer.Body.Close()
	_, err = fmt.Fscan(answer.Body, &asked)
	s.must(err)
	return asked
}

// Whatever is asked, a process that says no, or does not say anything in time,
// leaves the LAN's table, and comes back when it is well again. That some other
// program answers well in its place is no answer, and a command that does not end in
// time ends with all that it has started.
func TestHealthKinds(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	modules := s.checkeds()
	var wanted []lab.Need
	for name := range modules {
		wanted = append(wanted, needs(1, name)...)
	}
	manager := s.lan(wanted...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules})
	s.served(o, len(modules))
	be := func(state string) {
		t.Helper()
		for name := range modules {
			s.be(a, name+"-0", state)
		}
	}
	withdrawn := func(reasons map[string]string) {
		t.Helper()
		for name, reason := range reasons {
			s.until(func() string {
				if d := s.need(a, name+"-0"); !strings.Contains(d.GetDetail(), "withdrawn until it is well again") || !strings.Contains(d.GetDetail(), reason) {
					return fmt.Sprintf("%s is %v because %q, want %q", name, d.GetDecision(), d.GetDetail(), reason)
				}
				return ""
			})
		}
	}
	first := s.running(a)
	be("ill")
	withdrawn(map[string]string{
		"grpc": "does not say SERVING (it says NOT_SERVING)", "tcp": `it answers "+ill\r\n"`, "ws": "it answers 503", "http": "it answers 503",
		"command": `exit code 1: "it feels ill"`,
	})
	be("well")
	s.served(o, len(modules))
	be("slow")
	var asking []lab.Child
	s.until(func() string {
		for _, c := range s.lab.Children()["command-0"] {
			if strings.HasPrefix(c.Command, "sleep ") {
				asking = append(asking, c)
			}
		}
		if asking == nil {
			return "no command asks"
		}
		return ""
	})
	withdrawn(map[string]string{
		"grpc": "deadline exceeded", "tcp": "timeout", "ws": "deadline exceeded", "http": "deadline exceeded", "command": "did not end in time",
	})
	for _, c := range asking {
		s.until(func() string {
			if c.Alive() {
				return fmt.Sprintf("what a command has started still runs: %v", c)
			}
			return ""
		})
	}
	be("well")
	s.served(o, len(modules))

	// The next agent asks as the one before.
	s.must(a.Leave())
	a = s.again("machine")
	be("ill")
	withdrawn(map[string]string{"command": `exit code 1: "it feels ill"`, "grpc": "NOT_SERVING"})
	be("well")
	s.served(o, len(modules))
	for name, p := range s.running(a) {
		if p.GetPid() != first[name].GetPid() {
			t.Errorf("%s was replaced", name)
		}
	}

	be("gone")
	liars := map[string]string{"http": "", "port": "", "grpc": "1", "tcp": "", "ws": ""} // and whether they speak gRPC
	for name, grpc := range liars {
		s.stranger(s.process(a, name+"-0").GetPorts(), grpc)
		liars[name] = "is that of another program"
	}
	withdrawn(liars)
}

// stranger is a program of nobody's that answers well on the ports of a process,
// as soon as it can have them.
func (s *stage) stranger(ports *pb.Ports, grpc string) {
	s.t.Helper()
	for _, port := range []int32{ports.GetTcp(), ports.GetHttp(), ports.GetWs()} {
		s.until(func() string { // the process lets go of them one by one
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
			if err != nil {
				return err.Error()
			}
			l.Close()
			return ""
		})
	}
	self, err := os.Executable()
	s.must(err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"=checked", "E2E_GRPC="+grpc, fmt.Sprintf("TCP_PORT=%d", ports.GetTcp()),
		fmt.Sprintf("HTTP_PORT=%d", ports.GetHttp()), fmt.Sprintf("WS_PORT=%d", ports.GetWs()))
	s.must(cmd.Start())
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s.accepts(int(ports.GetHttp()))
}

// Whoever takes a connection and does not answer is not ready, however often it is
// asked, and is as soon as it says so.
func TestReadySlow(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	all := s.checkeds()
	modules := map[string]lab.Module{"grpc": all["grpc"], "http": all["http"]}
	modules["http"]["ready"] = map[string]string{"kind": "http", "path": "/"}
	var wanted []lab.Need
	for name, module := range modules {
		delete(module, "health")
		module["environment"].(map[string]string)[checkedBe] = "slow"
		wanted = append(wanted, needs(1, name)...)
	}
	manager := s.lan(wanted...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules})
	for name := range modules {
		s.listening(a, name+"-0")
		s.until(func() string {
			if asked := s.be(a, name+"-0", ""); asked < 2 {
				return fmt.Sprintf("%s was asked %d times", name, asked)
			}
			return ""
		})
		if p := s.process(a, name+"-0"); p.GetState() != pb.ProcessState_PROCESS_STATE_STARTING {
			t.Errorf("who does not answer is %v", p)
		}
	}
	if seen := o.Changes(); len(seen) != 0 {
		t.Errorf("the LAN was told %v", seen)
	}
	for name := range modules {
		s.be(a, name+"-0", "well")
	}
	s.served(o, len(modules))
}

// A process whose gRPC server does not serve is never offered, and says why.
func TestReadyGRPC(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	module := s.checkeds()["grpc"]
	module["ready"], module["starttimeout"] = map[string]string{"kind": "grpc", "service": "no.Such"}, "5s"
	module["backoff"] = map[string]string{"initial": "1m", "max": "1m"}
	manager := s.lan(needs(1, "grpc")...)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"grpc": module}})
	d := s.decided(a, "grpc-0", pb.Decision_DECISION_BACKOFF)
	if !strings.Contains(d.GetDetail(), "not ready within 5s") || !strings.Contains(d.GetDetail(), "it knows no service of that name") {
		t.Errorf("it waits because %q", d.GetDetail())
	}
}
