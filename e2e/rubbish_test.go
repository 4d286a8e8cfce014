//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// rubbish is what may listen where a LAN manager should be, and what
// `agentctl status` says of it.
var rubbish = []struct {
	name   string
	answer http.HandlerFunc
	want   string // ADDRESS is where it listens
}{
	{"hangs up", raw(func(net.Conn) {}), "no LAN manager at ADDRESS: connecting to ws://ADDRESS/: unexpected EOF"},
	{"another protocol", raw(func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n") }),
		`no LAN manager at ADDRESS: connecting to ws://ADDRESS/: malformed HTTP response "SSH-2.0-OpenSSH_9.2"; no LAN manager speaks like that: set "lanmanageraddress" and "lanmanagerport" to where it listens`},
	{"web server", http.NotFound, `no LAN manager at ADDRESS: ws://ADDRESS/ does not speak WebSocket: it answered "404 Not Found": 404 page not found; no LAN manager speaks like that: set "lanmanageraddress" and "lanmanagerport" to where it listens`},
	{"says nothing", raw(func(c net.Conn) { io.Copy(io.Discard, c) }),
		"no LAN manager at ADDRESS: no answer within 10s: the machine can not be reached, or what listens there is no LAN manager"},
	{"units without sense", speak("hello", "[1,2", "{}", "[]", `["r"]`, `["oob",["no","s"]]`, `["?",null]`, "5"),
		"session with the LAN manager at ADDRESS: websocket: close 1006 (abnormal closure): unexpected EOF"},
	{"no text", speak(strings.Repeat("\xff\x00", 1000)), "session with the LAN manager at ADDRESS: text frame is not UTF-8"},
	{"too long", speak(strings.Repeat("[", 5<<20)), "session with the LAN manager at ADDRESS: frame: unit or frame is too large"},
	{"refusal", speak(`{"err":{}}`), "session with the LAN manager at ADDRESS: introduction: the LAN manager refused the introduction; " +
		"it admits only the addresses that its file `.allexlanmanager/subnets` names: add this machine's there"},
}

// raw answers a request with whatever, and hangs up.
func raw(talk func(net.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			defer c.Close()
			talk(c)
		}
	}
}

// speak says those units on a WebSocket as soon as the agent has said something,
// and hangs up.
func speak(units ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		_, _, err = c.ReadMessage()
		for n := 0; n < len(units) && err == nil; n++ {
			err = c.WriteMessage(websocket.TextMessage, []byte(units[n]))
		}
	}
}

// hangingUp is a listener that ends its connections with itself.
type hangingUp struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn // nil when closed
}

func (l *hangingUp) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.conns = append(l.conns, c)
		l.mu.Unlock()
	}
	return c, err
}

func (l *hangingUp) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
	return err
}

// An agent whose LAN manager is none says so, goes on, and is there when a real
// one appears.
func TestRubbishInPlaceOfALANManager(t *testing.T) {
	t.Parallel()
	for _, r := range rubbish {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			port, err := s.lab.Ports(1)
			s.must(err)
			address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
			l, err := net.Listen("tcp", address)
			s.must(err)
			listener := &hangingUp{Listener: l}
			server := &http.Server{Handler: r.answer}
			var serving sync.WaitGroup
			serving.Go(func() { _ = server.Serve(listener) })
			leave := sync.OnceFunc(func() {
				listener.Close()
				server.Close()
				serving.Wait()
			})
			defer leave()

			a := s.agent("machine", lab.AgentFiles{LANManager: address})
			want := strings.ReplaceAll(r.want, "ADDRESS", address)
			s.until(func() string {
				link := s.link(a)
				if link.GetProblem() == want && !link.GetConnected() {
					return ""
				}
				return "the problem is " + link.GetProblem() + ", want " + want
			})
			s.until(func() string { // each try has its own problem, and it may be another one
				out, err := a.Ctl(s.ctx, "status")
				if !strings.Contains(out, "NOT CONNECTED") || !strings.Contains(out, want) || err != nil {
					return fmt.Sprintf("agentctl status: %v\n%s", err, out)
				}
				return ""
			})

			leave()
			dir := filepath.Join(s.lab.Dir, "lan")
			s.must(lab.WriteJSON(filepath.Join(dir, ".allexlanmanager", "needs"), []record{{"instancename": "hello-0", "modulename": "hello"}}))
			s.must(os.WriteFile(filepath.Join(dir, "port"), []byte(address), 0o644))
			s.served(s.observe(s.lan()), 1)
			if link := s.link(a); !link.GetConnected() || link.GetProblem() != "" {
				t.Errorf("under a real LAN manager: %v", link)
			}
		})
	}
}

// link asks an agent for its link to the LAN manager.
func (s *stage) link(a *lab.Agent) *pb.Link {
	s.t.Helper()
	answer, err := a.Client.Agent.GetStatus(s.ctx, &pb.GetStatusRequest{})
	s.must(err)
	return answer.GetLink()
}
