//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// greeters are the three examples: the same service in three languages. Each has
// the next one for a friend.
var greeters = []struct{ folder, instance, status, friend string }{
	{"greeter", "Greeter-Go", "greets in Go", "Greeter-Node"},
	{"node", "Greeter-Node", "greets in Node", "Greeter-Python"},
	{"python", "Greeter-Python", "greets in Python", "Greeter-Go"},
}

// The examples in Go, Node and Python do in one LAN what docs/children.md says of
// them: they register, with every agent anew, find and watch each other, report
// themselves down and are replaced, and end when they are asked to.
func TestExamples(t *testing.T) {
	t.Parallel()
	interpreters(t)
	s := newStage(t)
	var needs []lab.Need
	for _, g := range greeters {
		needs = append(needs, lab.Need{InstanceName: g.instance, ModuleName: s.moduleOf(g.folder)["modulename"].(string),
			PropertyHash: map[string]any{"greeting": "good day", "friend": g.friend}})
	}
	manager := s.lan(needs...)
	o := s.observe(manager)
	modules := map[string]lab.Module{}
	for _, g := range greeters {
		module := s.moduleOf(g.folder)
		module["backoff"] = map[string]string{"initial": "0s"}
		modules[g.folder] = module
	}
	files := lab.AgentFiles{LANManager: manager.Address, Modules: modules, Ports: 20}
	dir, err := s.lab.WriteAgent("machine", files)
	s.must(err)
	s.installExamples(dir)
	a := s.again("machine")
	s.served(o, len(greeters))
	s.greet(a)

	s.must(a.Leave())
	a = s.again("machine")
	s.greet(a) // the status is what no agent keeps: they registered again

	for _, g := range greeters {
		before := s.process(a, g.instance)
		s.page(before, "/down", "goodbye\n")
		s.succeeded(a, before, "somebody asked for it")
	}
	s.greet(a)
	for _, g := range greeters {
		before := s.process(a, g.instance)
		s.askToStop(before, "the test asks")
		s.succeeded(a, before, "")
		s.logged(before, "the test asks")
	}
	s.greet(a)
	for _, g := range greeters {
		before := s.process(a, g.instance)
		_, err := a.Client.Processes.StopProcess(s.ctx, &pb.StopProcessRequest{Instance: g.instance})
		s.must(err)
		s.until(func() string {
			if p := s.process(a, g.instance); p.GetPid() != 0 {
				return "it runs on: " + p.String()
			}
			return ""
		})
		s.endedWell(s.process(a, g.instance), before)
		s.logged(before, "operator") // the agent asked in the same way
	}
	s.served(o, 0)
}

// interpreters fails, or without CI skips, a test of the examples if what they
// need is not there.
func interpreters(t *testing.T) {
	t.Helper()
	for _, need := range []struct {
		command []string
		cure    string
	}{
		{[]string{"node", "-e", "require('@grpc/grpc-js')"}, "install Node (apt-get install nodejs npm) and run `npm ci` in examples/node"},
		{[]string{"/usr/bin/python3", "-c", "import grpc, grpc_tools"}, "apt-get install python3-grpcio python3-grpc-tools"},
	} {
		cmd := exec.Command(need.command[0], need.command[1:]...)
		cmd.Dir = filepath.Join("..", "examples", "node")
		if cmd.Run() == nil {
			continue
		}
		missing := fmt.Sprintf("the examples can not be run, since `%s` fails: %s", strings.Join(need.command, " "), need.cure)
		if os.Getenv("CI") != "" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
}

// moduleOf is the module file of an example.
func (s *stage) moduleOf(folder string) lab.Module {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "examples", folder, "module.json"))
	s.must(err)
	var m lab.Module
	s.must(json.Unmarshal(text, &m))
	return m
}

// installExamples does what the READMEs of the examples say, into the directory
// of an agent.
func (s *stage) installExamples(dir string) {
	s.t.Helper()
	root, err := filepath.Abs("..")
	s.must(err)
	script := `set -e
		ln -s "$2/greeter" .
		mkdir node python
		cp "$1"/examples/node/*.js node
		ln -s "$1/examples/node/node_modules" node
		cp -r "$1/proto" node
		cp "$1"/examples/python/*.py python
		cd "$1/proto"
		/usr/bin/python3 -m grpc_tools.protoc -I . --python_out="$3/python" --grpc_python_out="$3/python" machineagent/v1/*.proto`
	cmd := exec.CommandContext(s.ctx, "sh", "-c", script, "install", root, s.lab.Bin, dir)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("the examples can not be installed: %v\n%s", err, out)
	}
}

// greet waits until every greeter is up with this agent, knows where all are, and
// can have its friend greet.
func (s *stage) greet(a *lab.Agent) {
	s.t.Helper()
	for _, g := range greeters {
		s.until(func() string {
			if p := s.process(a, g.instance); p.GetPlace() != pb.ProcessPlace_PROCESS_PLACE_SERVED || p.GetStatusText() != g.status {
				return g.instance + " has not registered: " + p.String()
			}
			return ""
		})
	}
	var all []string
	for _, g := range greeters {
		all = append(all, fmt.Sprintf("%s 127.0.0.1:%d\n", g.instance, s.process(a, g.instance).GetPorts().GetHttp()))
	}
	slices.Sort(all)
	for _, g := range greeters {
		p, friend := s.process(a, g.instance), s.process(a, g.friend)
		s.page(p, "/", fmt.Sprintf("good day from %s, pid %d\n", g.instance, p.GetPid()))
		s.page(p, "/services", strings.Join(all, ""))
		s.page(p, "/friend", fmt.Sprintf("good day from %s, pid %d\n", g.friend, friend.GetPid()))
	}
}

// page waits until a process serves a page with that text.
func (s *stage) page(p *pb.Process, path, want string) {
	s.t.Helper()
	visitor := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	s.until(func() string {
		request, err := http.NewRequestWithContext(s.ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", p.GetPorts().GetHttp(), path), nil)
		s.must(err)
		answer, err := visitor.Do(request)
		if err != nil {
			return err.Error()
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil || string(text) != want {
			return fmt.Sprintf("%s%s is %q, want %q: %v", p.GetInstance(), path, text, want, err)
		}
		return ""
	})
}

// succeeded waits until a process has a successor that is served, and makes sure
// that it ended well, and for that reason.
func (s *stage) succeeded(a *lab.Agent, before *pb.Process, reason string) {
	s.t.Helper()
	s.until(func() string {
		p := s.process(a, before.GetInstance())
		if p.GetPid() == 0 || p.GetPid() == before.GetPid() || p.GetPlace() != pb.ProcessPlace_PROCESS_PLACE_SERVED {
			return fmt.Sprintf("process %d is not replaced: %v", before.GetPid(), p)
		}
		return ""
	})
	after := s.process(a, before.GetInstance())
	s.endedWell(after, before)
	if !strings.Contains(after.GetLastReason(), reason) {
		s.t.Errorf("it was replaced because %q, want %q", after.GetLastReason(), reason)
	}
}

// endedWell makes sure that a process ended with 0 and left no socket, by what the
// agent now says of its instance.
func (s *stage) endedWell(now, before *pb.Process) {
	s.t.Helper()
	exit, ok := now.GetLastExit().GetStatus().(*pb.ExitStatus_Code)
	if !ok || exit.Code != 0 {
		s.t.Errorf("%s ended with %v, want 0", before.GetInstance(), now.GetLastExit())
	}
	if _, err := os.Lstat(socketOf(before)); !os.IsNotExist(err) {
		s.t.Errorf("%s left %s: %v", before.GetInstance(), socketOf(before), err)
	}
}

// logged makes sure that a process has told why it ended.
func (s *stage) logged(p *pb.Process, reason string) {
	s.t.Helper()
	text, err := os.ReadFile(p.GetLogFile())
	s.must(err)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "ended: ") && strings.Contains(line, reason) {
			return
		}
	}
	s.t.Errorf("%s does not say that it ended because %s:\n%s", p.GetInstance(), reason, text)
}

func socketOf(p *pb.Process) string { return fmt.Sprintf("/tmp/allexprocess.%d", p.GetPid()) }

// askToStop asks a child to end over its own socket, which is for its user only.
func (s *stage) askToStop(p *pb.Process, reason string) {
	s.t.Helper()
	info, err := os.Lstat(socketOf(p))
	s.must(err)
	if info.Mode().Type() != os.ModeSocket || info.Mode().Perm()&0o077 != 0 {
		s.t.Errorf("%s has the mode %v", socketOf(p), info.Mode())
	}
	conn, err := grpc.NewClient("passthrough:///localhost", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socketOf(p))
		}))
	s.must(err)
	defer conn.Close()
	_, err = pb.NewChildServiceClient(conn).Stop(s.ctx, &pb.StopRequest{Reason: reason, Timeout: durationpb.New(time.Minute)})
	s.must(err)
}
