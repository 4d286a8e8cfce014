//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/allexgo/machine-agent/client"
	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// defaultSocket is where the README's agent listens.
const defaultSocket = "/tmp/allexmachinemanager"

// readmeCommands are the commands of a section of the README, in order: what
// stands behind "$ ", with the lines in which it goes on.
func (s *stage) readmeCommands(section string) []string {
	s.t.Helper()
	text, err := os.ReadFile("../README.md")
	s.must(err)
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		s.t.Fatalf("the README has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	var all []string
	goesOn := false
	for line := range strings.Lines(rest) {
		switch command, begins := strings.CutPrefix(line, "    $ "); {
		case begins:
			all = append(all, command)
		case goesOn:
			all[len(all)-1] += line
		}
		goesOn = strings.HasPrefix(line, "    ") && strings.HasSuffix(line, "\\\n")
	}
	return all
}

// shell has a shell run those commands one after the other, with dir in front of
// PATH, and tells what each of them said.
func (s *stage) shell(dir string, commands []string) (answers []string) {
	s.t.Helper()
	const mark = "### next\n"
	script := "set -e\n" + strings.Join(commands, "printf '"+strings.ReplaceAll(mark, "\n", `\n`)+"'\n")
	cmd := exec.CommandContext(s.ctx, "sh", "-c", script)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that it does not leave what it started
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		_ = cmd.Cancel()
		s.t.Fatalf("%v\n%s\n--- in:\n%s", err, out, script)
	}
	answers = strings.Split(string(out), mark)
	if len(answers) != len(commands) {
		s.t.Fatalf("%d answers to %d commands:\n%s", len(answers), len(commands), out)
	}
	return answers
}

// What the README tells to do by hand with grpcurl works as it stands there,
// and errors come with their details.
func TestREADMEByHand(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	tools := s.lab.Bin
	_, _, a := s.serving(1)

	commands := s.readmeCommands("The API, by hand")
	const list, describe, sleep, register, ports, report = 0, 1, 2, 3, 4, 5
	if len(commands) != report+1 || !strings.HasPrefix(commands[sleep], "sleep") {
		t.Fatalf("the README has commands that this test does not know: %q", commands)
	}
	// The rest are not in the README.
	const wait, process, missing, health, tail, others = 6, 7, 8, 9, 10, 11
	const call = "grpcurl -plaintext -unix "
	commands = append(commands,
		"wait $! || echo ended with $?\n",
		call+`-d '{"instance": "Nap"}' `+defaultSocket+" machineagent.v1.ProcessService/GetProcess\n",
		call+`-d '{"instance": "Nobody"}' `+defaultSocket+" machineagent.v1.ProcessService/GetProcess || echo exit code $?\n",
		call+defaultSocket+" grpc.health.v1.Health/Check\n",
		call+`-d '{"instance": "hello-0", "lines": 1}' `+defaultSocket+" machineagent.v1.ProcessService/TailLogs\n",
	)
	for _, service := range []string{"AgentService", "DirectoryService", "NeedService", "PortService"} {
		commands = append(commands, call+defaultSocket+" describe machineagent.v1."+service+"\n")
	}
	for n, c := range commands {
		if strings.Contains(c, "grpcurl") && !strings.Contains(c, defaultSocket) {
			t.Errorf("%q does not name %s", c, defaultSocket)
		}
		commands[n] = strings.ReplaceAll(c, defaultSocket, a.Socket)
	}
	answers := s.shell(tools, commands)

	s.same("list", answers[list], allServices)
	s.described(answers[describe] + strings.Join(answers[others:], ""))
	s.napped(answers[register], answers[report])
	s.portsOf(a, answers[ports])
	s.same("the end of the sleep", answers[wait], "ended with 143\n") // 128 and SIGTERM
	s.same("error", answers[missing], noInstance)
	var piece pb.TailLogsResponse
	s.fromJSON(answers[tail], &piece)
	if !strings.HasPrefix(string(piece.GetData()), "hello from hello-0") || piece.GetPosition() != 0 {
		t.Errorf("the log: %v", &piece)
	}
	s.same("health", answers[health], "{\n  \"status\": \"SERVING\"\n}\n")

	var ended pb.GetProcessResponse
	s.until(func() string { // the shell may have seen the end first
		s.fromJSON(s.shell(tools, commands[process:process+1])[0], &ended)
		if ended.GetProcess().GetState() != pb.ProcessState_PROCESS_STATE_ENDED {
			return "the end of the sleep is not known"
		}
		return ""
	})
	if p := ended.GetProcess(); p.GetLastExit().GetSignal() != "SIGTERM" || p.GetLastReason() != "slept enough (signal SIGTERM)" {
		t.Errorf("the end of the sleep: %v", p)
	}
}

// described makes sure that every call of every service is described.
func (s *stage) described(text string) {
	s.t.Helper()
	tells := func(rpc string) {
		if !strings.Contains(text, rpc) {
			s.t.Errorf("describe does not tell %q:\n%s", rpc, text)
		}
	}
	for _, service := range []grpc.ServiceDesc{pb.ProcessService_ServiceDesc, pb.AgentService_ServiceDesc, pb.NeedService_ServiceDesc, pb.PortService_ServiceDesc, pb.DirectoryService_ServiceDesc} {
		for _, m := range service.Methods {
			tells(fmt.Sprintf("rpc %[1]s ( .machineagent.v1.%[1]sRequest ) returns ( .machineagent.v1.%[1]sResponse );\n", m.MethodName))
		}
		for _, m := range service.Streams {
			tells(fmt.Sprintf("rpc %[1]s ( .machineagent.v1.%[1]sRequest ) returns ( stream .machineagent.v1.%[1]sResponse );\n", m.StreamName))
		}
		for _, m := range service.Streams {
			rpc := fmt.Sprintf("rpc %[1]s ( .machineagent.v1.%[1]sRequest ) returns ( stream .machineagent.v1.%[1]sResponse );\n", m.StreamName)
			if !strings.Contains(text, rpc) {
				s.t.Errorf("describe does not tell %q:\n%s", rpc, text)
			}
		}
	}
}

// napped makes sure that the sleep was registered, and the same reported down.
func (s *stage) napped(registered, reported string) {
	s.t.Helper()
	var up pb.RegisterProcessResponse
	s.fromJSON(registered, &up)
	nap := up.GetProcess()
	if nap.GetInstance() != "Nap" || nap.GetPid() == 0 || nap.GetState() != pb.ProcessState_PROCESS_STATE_READY || nap.GetOrigin() != pb.ProcessOrigin_PROCESS_ORIGIN_OUTSIDE {
		s.t.Errorf("registered: %v", nap)
	}
	var down pb.ReportDownResponse
	s.fromJSON(reported, &down)
	if p := down.GetProcess(); p.GetPid() != nap.GetPid() || p.GetState() != pb.ProcessState_PROCESS_STATE_STOPPING {
		s.t.Errorf("reported down: %v, want %v", p, nap)
	}
}

// portsOf makes sure that there is one lease, that of hello-0.
func (s *stage) portsOf(a *lab.Agent, listed string) {
	s.t.Helper()
	var ports pb.ListPortsResponse
	s.fromJSON(listed, &ports)
	hello := s.process(a, "hello-0")
	if all := ports.GetLeases(); len(all) != 1 || all[0].GetPort() != hello.GetPorts().GetHttp() || all[0].GetPid() != hello.GetPid() {
		s.t.Errorf("ports: %v, want that of %v", all, hello)
	}
}

const allServices = `grpc.health.v1.Health
grpc.reflection.v1.ServerReflection
grpc.reflection.v1alpha.ServerReflection
machineagent.v1.AgentService
machineagent.v1.DirectoryService
machineagent.v1.NeedService
machineagent.v1.PortService
machineagent.v1.ProcessService
`

// noInstance is an error with its details, as grpcurl prints it.
const noInstance = `ERROR:
  Code: NotFound
  Message: there is no instance "Nobody" on this machine; ` + "`agentctl ps` and `agentctl needs`" + ` show those that there are
  Details:
  1)	{
    	  "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    	  "domain": "machineagent",
    	  "metadata": {
    	    "instance": "Nobody"
    	  },
    	  "reason": "INSTANCE_NOT_FOUND"
    	}
  2)	{
    	  "@type": "type.googleapis.com/google.rpc.ResourceInfo",
    	  "description": "there is no instance \"Nobody\" on this machine; ` + "`agentctl ps` and `agentctl needs`" + ` show those that there are",
    	  "resourceName": "Nobody",
    	  "resourceType": "instance"
    	}
exit code 69
`

func (s *stage) same(what, got, want string) {
	s.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("%s: -want +got:\n%s", what, diff)
	}
}

func (s *stage) fromJSON(text string, m proto.Message) {
	s.t.Helper()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		s.t.Fatalf("%v in:\n%s", err, text)
	}
}

// A flood of questions, also of those for which the agent looks at the system, does
// not keep needs from being served.
func TestFlood(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "deaf")...)
	o := s.observe(manager)
	deaf := s.hello()
	deaf["modulename"], deaf["command"] = "deaf", []string{"sleep", "600"}
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"hello": s.hello(), "deaf": deaf}})
	s.linked(a)
	s.decided(a, "deaf-0", pb.Decision_DECISION_STARTING)

	const callers = 64
	within, stop := context.WithTimeout(s.ctx, time.Second)
	defer stop()
	var asked atomic.Int64
	var asking errgroup.Group
	for range callers {
		c, err := client.Dial("unix:" + a.Socket)
		s.must(err)
		defer c.Close()
		asking.Go(func() error {
			for within.Err() == nil {
				_, processes := c.Processes.ListProcesses(s.ctx, &pb.ListProcessesRequest{Usage: true})
				_, needs := c.Needs.ListNeeds(s.ctx, &pb.ListNeedsRequest{})
				_, ports := c.Ports.ListPorts(s.ctx, &pb.ListPortsRequest{})
				if err := errors.Join(processes, needs, ports); err != nil {
					return err
				}
				asked.Add(3)
			}
			return nil
		})
	}
	wanted := needs(10, "hello")
	for _, n := range wanted {
		_, err := a.Client.Needs.AddNeed(s.ctx, &pb.AddNeedRequest{Need: &pb.Need{Instance: n.InstanceName, Module: n.ModuleName}})
		s.must(err)
	}
	s.served(o, len(wanted))
	s.must(asking.Wait())
	if n := asked.Load(); n < callers {
		t.Errorf("%d callers had %d answers", callers, n)
	}
	t.Logf("%d answers to %d callers", asked.Load(), callers)
}

// descriptors are those that a process has open.
func descriptors(s *stage, pid int) int {
	s.t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	s.must(err)
	return len(all)
}

// Whoever connects and talks rubbish, or not at all, harms nobody: the agent
// goes on answering, keeps nothing of him, and leaves when it is told to.
func TestOddCallers(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	a := s.agent("machine", lab.AgentFiles{LANManager: s.lan().Address})
	ask := func() {
		t.Helper()
		_, err := a.Client.Agent.GetStatus(s.ctx, &pb.GetStatusRequest{})
		s.must(err)
	}
	ask()
	s.linked(a) // the link has descriptors, too
	before := descriptors(s, a.PID())

	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	var callers []net.Conn
	for _, said := range []string{
		"", "\n", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", strings.Repeat("\x00", 1<<16), strings.Repeat("rubbish ", 1<<13),
		preface[:10], preface, preface + "no frame", // the rest is behind a good beginning
		preface + "\xff\xff\xff\x00\x00\x00\x00\x00\x01",                                                                        // data, 16 MiB
		preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + strings.Repeat("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", 1000), // settings, pings
		preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x04\x01\x04\x00\x00\x00\x01\xff\xff\xff\xff",               // headers that are none
	} {
		for range 4 {
			c, err := net.Dial("unix", a.Socket)
			s.must(err)
			defer c.Close()
			callers = append(callers, c)
			s.must(c.SetWriteDeadline(time.Now().Add(5 * time.Second)))
			_, _ = c.Write([]byte(said)) // the agent may have hung up
		}
	}
	ask()
	silent := callers[:4]
	for _, c := range callers[len(silent):] {
		c.Close()
	}
	s.until(func() string {
		if n := descriptors(s, a.PID()); n > before+2*len(silent) { // a connection and a pidfd each
			return fmt.Sprintf("the agent had %d descriptors and has %d", before, n)
		}
		return ""
	})
	ask()
	if n := s.threads(a.PID()); n > mostThreads {
		t.Errorf("the agent has %d threads, want %d at most", n, mostThreads)
	}
	// The silent ones are still there.
	s.must(a.Leave())
	if code := a.ExitCode(); code != 0 {
		t.Errorf("the agent left with exit code %d", code)
	}
}
