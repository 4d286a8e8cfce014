package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/allexgo/machine-agent/lanmanager"
)

// devLANManager is where the LAN manager of --dev listens: the embedded
// default of the wire (lan/PROTOCOL.md section 0).
const devLANManager = "127.0.0.1:23552"

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
	cfg, catalogue, err := options{directory: dir}.load(io.Discard)
	if err != nil {
		return exitFailed, err
	}
	log := logger(cfg.Log)
	lan, err := lanmanager.New(lanmanager.Config{
		Directory: dir, Logger: log.ResetNamed("lanmanager"),
		Listeners: []lanmanager.Listener{{Envelope: lanmanager.WebSocket, Address: devLANManager}},
	})
	if err != nil {
		return exitFailed, err
	}
	m, err := assemble(cfg, catalogue, log)
	if err != nil {
		return exitFailed, err
	}
	defer m.store.Close()
	fmt.Fprintf(out, "agentd --dev in %s\n  look:  agentctl needs, agentctl ps, agentctl ports\n  stop:  Ctrl-C stops and removes everything\n", dir)
	if err := runAll(ctx, lan, m, log); err != nil {
		return exitFailed, err
	}
	return 0, nil
}

// runAll runs both until ctx ends; then the agent stops its children while the
// LAN manager is still there to hear of it.
func runAll(ctx context.Context, lan *lanmanager.Manager, m *machine, log hclog.Logger) error {
	group, failed := errgroup.WithContext(ctx)
	managing, stopManaging := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { return lan.Run(managing) })
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
	if self, err := os.Executable(); err == nil {
		hello := filepath.Join(filepath.Dir(self), "hello")
		if _, err := os.Stat(hello); err == nil {
			if err := add("Hello", "hello", hello); err != nil {
				return err
			}
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
