package lab

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// Agent is a running agent.
type Agent struct {
	*Program
	lab       *Lab
	Directory string
	Socket    string
	Client    *client.Client
}

// Module is a module file.
type Module map[string]any

// AgentFiles is what an agent's directory holds.
type AgentFiles struct {
	LANManager string         // host:port
	Ports      int            // of each protocol; 0: 1200
	Config     map[string]any // laid over the lab's defaults
	Modules    map[string]Module
}

// WriteAgent writes the files of an agent and tells its directory.
func (l *Lab) WriteAgent(name string, f AgentFiles) (string, error) {
	dir := filepath.Join(l.Dir, name)
	host, port, err := net.SplitHostPort(f.LANManager)
	if err != nil {
		return "", err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return "", err
	}
	if f.Ports == 0 {
		f.Ports = 1200
	}
	first, err := l.Ports(3 * f.Ports)
	if err != nil {
		return "", err
	}
	config := map[string]any{
		"lanmanageraddress": host,
		"lanmanagerport":    number,
		"portrangestart":    map[string]int{"tcp": first, "http": first + f.Ports, "ws": first + 2*f.Ports},
		"portrangesize":     f.Ports,
		"socket":            filepath.Join(dir, "agent.sock"),
		"name":              name,
	}
	for k, v := range f.Config {
		config[k] = v
	}
	if err := WriteJSON(filepath.Join(dir, "allexmasterconfig.json"), config); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(dir, "modules"), 0o755); err != nil {
		return "", err
	}
	for module, text := range f.Modules {
		if err := WriteJSON(filepath.Join(dir, "modules", module+".json"), text); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// StartAgent runs an agent on the files that WriteAgent wrote, with environment
// added to ours, and waits until its API answers. An agent that does not get
// there comes with the error.
func (l *Lab) StartAgent(name string, environment ...string) (*Agent, error) {
	dir := filepath.Join(l.Dir, name)
	p, err := l.start(name, dir, environment, "agentd", "--directory", dir)
	if err != nil {
		return nil, err
	}
	a := &Agent{Program: p, lab: l, Directory: dir, Socket: filepath.Join(dir, "agent.sock")}
	if a.Client, err = client.Dial("unix:" + a.Socket); err != nil {
		return nil, err
	}
	l.agents = append(l.agents, a)
	return a, p.await("answering on "+a.Socket, func() bool { return answers("unix", a.Socket) })
}

// Ctl runs agentctl against the agent and returns what it prints.
func (a *Agent) Ctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(a.lab.Bin, "agentctl"), args...)
	cmd.Env = append(os.Environ(), "MACHINEAGENT_ADDRESS=unix:"+a.Socket)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Stop sends a signal and waits for the end of the agent. Its children stay,
// for the agent that is started next to take over.
func (a *Agent) Stop(s syscall.Signal) error {
	return errors.Join(a.Program.Stop(s), a.Client.Close())
}

// Leave has the agent leave its children, as an upgrade does.
func (a *Agent) Leave() error { return a.Stop(syscall.SIGTERM) }

// Shutdown has the agent stop its children and leave.
func (a *Agent) Shutdown(ctx context.Context) error {
	if _, err := a.Client.Agent.Shutdown(ctx, &machineagentv1.ShutdownRequest{}); err != nil {
		return err
	}
	select {
	case <-a.Ended():
		return a.Client.Close()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close ends the agent with its children, if it has not ended.
func (a *Agent) close() error {
	var err error
	select {
	case <-a.Ended():
	default:
		within, stop := context.WithTimeout(context.Background(), patience)
		err = a.Shutdown(within)
		stop()
	}
	return errors.Join(err, a.Stop(syscall.SIGKILL))
}

// ChildPID tells the process of an instance.
func (a *Agent) ChildPID(ctx context.Context, instance string) (int, error) {
	answer, err := a.Client.Processes.GetProcess(ctx, &machineagentv1.GetProcessRequest{Instance: instance})
	if err != nil {
		return 0, err
	}
	return int(answer.GetProcess().GetPid()), nil
}
