package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"
)

// Where the LAN manager of --dev listens, and shows its page: at the defaults.
const (
	devLANManager = "127.0.0.1:23552"
	devPage       = "127.0.0.1:23580"
)

// develop runs a LAN manager and an agent in a temporary directory with
// example modules. When ctx ends everything is stopped and removed.
func develop(ctx context.Context, out io.Writer) (int, error) {
	dir, err := os.MkdirTemp("", "machine-agent-dev-")
	if err != nil {
		return exitFailed, err
	}
	defer os.RemoveAll(dir)
	if err := writeExamples(dir, out); err != nil {
		return exitFailed, err
	}
	o := options{directory: dir}
	cfg, catalogue, err := o.load(io.Discard)
	if err != nil {
		return exitFailed, err
	}
	log := logger(cfg.Log)
	m, err := o.assemble(cfg, catalogue, log, inherited{})
	if err != nil {
		return exitFailed, err
	}
	m.dev = true
	defer m.store.Close()
	defer m.traces.end()
	lan, err := startLANManager(dir)
	if err != nil {
		m.abandon()
		return exitFailed, err
	}
	fmt.Fprintf(out, "agentd --dev in %s\n  look:  agentctl needs, agentctl ps, agentctl ports, http://%s/\n  stop:  Ctrl-C stops and removes everything\n", dir, devPage)
	if err := runAll(ctx, lan, m, log); err != nil {
		return exitFailed, err
	}
	return 0, nil
}

// lanManager is the program of that name, which lies beside agentd: an agent
// does not carry a LAN manager around.
type lanManager struct {
	cmd   *exec.Cmd
	input io.Closer // its standard input, with which it ends; so it does if we are killed
}

func startLANManager(dir string) (*lanManager, error) {
	for _, at := range []string{devLANManager, devPage} {
		l, err := net.Listen("tcp", at)
		if err != nil { // it must not serve that one's needs for a moment, if it is a LAN manager
			return nil, fmt.Errorf("--dev needs the address %s: %w; stop what is there, perhaps another LAN manager", at, err)
		}
		l.Close()
	}
	path := beside("lanmanager")
	if path == "" {
		return nil, errors.New("--dev needs the program lanmanager beside agentd, and there is none; `make build` makes both")
	}
	cmd := exec.Command(path, "--directory", dir, "--listen", devLANManager, "--page", devPage, "--until-stdin-ends")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("the LAN manager of --dev can not be started: %w", err)
	}
	awaitListener(devLANManager)
	return &lanManager{cmd, input}, nil
}

// awaitListener waits until somebody takes connections, so that the agent does not begin
// with warnings. If nobody does in time, both say why.
func awaitListener(address string) {
	const times, pause = 200, 10 * time.Millisecond
	for range times {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return
		}
		time.Sleep(pause)
	}
}

// run waits for its end, which comes when ctx ends.
func (l *lanManager) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.input.Close() })
	defer stop()
	err := l.cmd.Wait()
	if ctx.Err() == nil {
		return fmt.Errorf("the LAN manager of --dev has ended: %s; it says why above", l.cmd.ProcessState)
	}
	return err
}

// runAll runs both until ctx ends; then the agent stops its children while the
// LAN manager is still there to hear of it.
func runAll(ctx context.Context, lan *lanManager, m *machine, log hclog.Logger) error {
	group, failed := errgroup.WithContext(ctx)
	managing, stopManaging := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { return lan.run(managing) })
	group.Go(func() error {
		defer stopManaging()
		return m.run(context.WithoutCancel(ctx))
	})
	group.Go(func() error {
		select {
		case <-managing.Done(): // the agent has ended by itself
		case <-failed.Done(): // Ctrl-C, or one of the two could not go on
			if stopping, err := m.agent.Shutdown(managing); err == nil {
				log.Info("stopping everything", "processes", stopping)
			}
		}
		return nil
	})
	return group.Wait()
}

// writeExamples writes a module and a need for each example program that this
// machine has.
func writeExamples(dir string, out io.Writer) error {
	type need struct {
		ModuleName   string   `json:"modulename"`
		InstanceName string   `json:"instancename"`
		PropertyHash struct{} `json:"propertyhash"`
	}
	needs := []need{}
	add := func(instance, module string, command ...string) error {
		needs = append(needs, need{ModuleName: module, InstanceName: instance})
		return writeJSON(filepath.Join(dir, "modules", module+".json"), map[string]any{
			"modulename": module, "command": command, "ports": []string{"http"},
		})
	}
	if err := os.Mkdir(filepath.Join(dir, "modules"), 0o755); err != nil {
		return err
	}
	if hello := beside("hello"); hello != "" {
		if err := add("Hello", "hello", hello); err != nil {
			return err
		}
	}
	if python, err := exec.LookPath("python3"); err == nil {
		if err := add("Files", "webserver", python, "-m", "http.server", "${httpport}"); err != nil {
			return err
		}
	}
	if len(needs) == 0 {
		fmt.Fprintln(out, "agentd: there are no example needs, since neither python3 nor `hello` beside agentd is there; `make build` makes both agentd and hello")
	}
	if err := os.Mkdir(filepath.Join(dir, ".allexlanmanager"), 0o755); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, ".allexlanmanager", "needs"), needs)
}

func writeJSON(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
