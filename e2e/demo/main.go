// Command demo shows the road of this project in half a minute: needs become
// services, a death becomes a need again. It runs the programs of ./bin in a
// temporary directory with a socket and ports of their own, and cleans up.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	err := demo(ctx)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context) (err error) {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "machine-agent-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l := &lab.Lab{Dir: dir, Bin: bin}
	defer func() {
		if closing := l.Close(); err == nil {
			err = closing
		}
	}()

	modules, needs := examples(bin)
	manager, err := l.StartLANManager("lan", needs)
	if err != nil {
		return err
	}
	say("A LAN manager listens on %s. It holds %d needs:", manager.Address, len(needs))
	for _, n := range needs {
		show("%-8s wants a process of module %q", n.InstanceName, n.ModuleName)
	}
	observer, err := lab.Observe(ctx, manager.Address)
	if err != nil {
		return err
	}
	defer observer.Close()

	if _, err := l.WriteAgent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules}); err != nil {
		return err
	}
	began := time.Now()
	agent, err := l.StartAgent("machine")
	if err != nil {
		return err
	}
	defer agent.Client.Close()
	say("An agent starts on this machine; its catalogue has the modules.")
	if err := observer.Await(ctx, "every need is served", func(m *table.Mirror) bool { return m.Len() == len(needs) }); err != nil {
		return fmt.Errorf("%w\n%s", err, agent.Output())
	}
	say("After %s every need is a service of the LAN:", since(began, time.Now()))
	show("%s", describe(observer.Services()))
	say("They answer:")
	for _, s := range observer.Services() {
		line, err := visit(ctx, s.IPAddress, s.Ports.HTTP)
		if err != nil {
			return err
		}
		show("http://%s:%d  ->  %s", s.IPAddress, s.Ports.HTTP, line)
	}
	if err := kill(ctx, agent, observer, needs[0].InstanceName); err != nil {
		return err
	}
	for _, command := range []string{"status", "ps", "ports", "needs"} {
		say("agentctl %s", command)
		out, err := agent.Ctl(ctx, command)
		if err != nil {
			return fmt.Errorf("agentctl %s: %w\n%s", command, err, out)
		}
		show("%s", out)
	}
	say("agentctl shutdown: the agent stops its processes and leaves.")
	if out, err := agent.Ctl(ctx, "shutdown"); err != nil {
		return fmt.Errorf("agentctl shutdown: %w\n%s", err, out)
	}
	select {
	case <-agent.Ended():
	case <-ctx.Done():
		return fmt.Errorf("the agent did not leave\n%s", agent.Output())
	}
	if err := observer.Await(ctx, "no service is left", func(m *table.Mirror) bool { return m.Len() == 0 }); err != nil {
		return err
	}
	say("No service is left on the LAN's table, no process and no file on this machine.")
	return nil
}

// examples are what this machine can run: hello of this project, and Python's
// web server where Python is.
func examples(bin string) (map[string]lab.Module, []lab.Need) {
	modules := map[string]lab.Module{
		"hello": {"modulename": "hello", "command": []string{filepath.Join(bin, "hello")}, "ports": []string{"http", "tcp"}},
	}
	needs := []lab.Need{
		{InstanceName: "Hello-1", ModuleName: "hello"},
		{InstanceName: "Hello-2", ModuleName: "hello"},
	}
	if _, err := exec.LookPath("python3"); err == nil {
		modules["webserver"] = lab.Module{"modulename": "webserver", "command": []string{"python3", "-m", "http.server", "${httpport}"}, "ports": []string{"http"}}
		needs = append(needs, lab.Need{InstanceName: "Files", ModuleName: "webserver"})
	}
	return modules, needs
}

// kill ends a child with SIGKILL and shows what the LAN sees of it.
func kill(ctx context.Context, agent *lab.Agent, observer *lab.Observer, instance string) error {
	before, err := agent.ChildPID(ctx, instance)
	if err != nil {
		return err
	}
	seen := len(observer.Changes())
	killed := time.Now()
	process, err := os.FindProcess(before)
	if err != nil {
		return err
	}
	if err := process.Kill(); err != nil {
		return err
	}
	say("kill -9 %d, the process of %s", before, instance)
	var down, up time.Time
	err = observer.Await(ctx, instance+" is served again", func(*table.Mirror) bool {
		down, up = time.Time{}, time.Time{}
		for _, c := range observer.ChangesLocked()[seen:] {
			switch {
			case c.Instance != instance:
			case !c.Up:
				down = c.At
			case !down.IsZero():
				up = c.At
			}
		}
		return !up.IsZero()
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, agent.Output())
	}
	after, err := agent.ChildPID(ctx, instance)
	if err != nil {
		return err
	}
	show("%8s later the LAN's table has lost it: the agent has reported", since(killed, down))
	show("%8s later its replacement, process %d, is on the LAN's table", since(killed, up), after)
	return nil
}

// visit fetches a page and tells its status and first line.
func visit(ctx context.Context, address string, port int) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(address, strconv.Itoa(port)), nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	line, err := bufio.NewReader(answer.Body).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return answer.Status + "  " + strings.TrimSpace(line), nil
}

func describe(services map[string]table.Service) string {
	var lines []string
	for name, s := range services {
		lines = append(lines, fmt.Sprintf("%-8s at %s  tcp %s  http %s", name, s.IPAddress, number(s.Ports.TCP), number(s.Ports.HTTP)))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func number(port int) string {
	if port == 0 {
		return "-    "
	}
	return strconv.Itoa(port)
}

func since(from, to time.Time) string {
	return fmt.Sprintf("%.1f ms", float64(to.Sub(from).Microseconds())/1000)
}

func say(format string, args ...any) { fmt.Printf("\n"+format+"\n", args...) }

func show(format string, args ...any) {
	for line := range strings.Lines(strings.TrimRight(fmt.Sprintf(format, args...), "\n")) {
		fmt.Print("   ", line)
	}
	fmt.Println()
}
