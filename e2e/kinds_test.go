//go:build linux

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
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
// "gone" (it ends its servers and lives on).
type checked struct {
	healthpb.UnimplementedHealthServer
	be   atomic.Value // a string
	told chan string
}

// checkedRole is a checked; with the argument ask it is the command that asks one.
func checkedRole() error {
	if len(os.Args) > 1 && os.Args[1] == "ask" {
		return askChecked()
	}
	c := &checked{told: make(chan string, 8)}
	c.be.Store("well")
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
		c.told <- r.FormValue("state")
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

// Whatever is asked, a process that says no, or does not say anything in time,
// leaves the LAN's table, and comes back when it is well again. That some other
// program answers well in its place is no answer.
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
			port := s.process(a, name+"-0").GetPorts().GetHttp()
			answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/be?state=%s", port, state))
			s.must(err)
			answer.Body.Close()
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
	withdrawn(map[string]string{
		"grpc": "deadline exceeded", "tcp": "timeout", "ws": "deadline exceeded", "http": "deadline exceeded", "command": "did not end in time",
	})
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

	ports := s.process(a, "http-0").GetPorts()
	be("gone")
	stranger := s.stranger(int(ports.GetHttp()))
	t.Cleanup(func() { s.must(stranger.Close()) })
	withdrawn(map[string]string{"http": "is that of another program", "grpc": "refused", "tcp": "refused", "ws": "refused"})
}

// stranger is a web server of the test's own that is always well, on a port that
// has just been let go.
func (s *stage) stranger(port int) *http.Server {
	s.t.Helper()
	var l net.Listener
	s.until(func() string {
		var err error
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
			return err.Error()
		}
		return ""
	})
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go server.Serve(l)
	return server
}

// A process whose gRPC server does not serve is never offered, and says why.
func TestReadyGRPC(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	module := s.checkeds()["grpc"]
	module["ready"], module["starttimeout"] = map[string]string{"kind": "grpc", "service": "no.Such"}, "2s"
	module["backoff"] = map[string]string{"initial": "1m", "max": "1m"}
	manager := s.lan(needs(1, "grpc")...)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"grpc": module}})
	d := s.decided(a, "grpc-0", pb.Decision_DECISION_BACKOFF)
	if !strings.Contains(d.GetDetail(), "not ready within 2s") || !strings.Contains(d.GetDetail(), "it knows no service of that name") {
		t.Errorf("it waits because %q", d.GetDetail())
	}
}
