//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
)

// benchHealth measures what it costs to ask n children every ten seconds how they
// are, for each kind of check: the processor time of the agent beyond that of
// doing nothing.
func benchHealth(ctx context.Context, bin string, n int, watch time.Duration) error {
	dir, err := os.MkdirTemp("", "machine-agent-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	child := filepath.Join(dir, "bserve")
	if out, err := exec.CommandContext(ctx, "cc", "-O2", "-o", child, filepath.Join("bench", "testdata", "bserve.c")).CombinedOutput(); err != nil {
		return fmt.Errorf("the child can not be compiled: %w\n%s", err, out)
	}
	var rows []row
	for _, kind := range []string{"", "port", "tcp", "http"} {
		used, memory, err := healthCost(ctx, bin, filepath.Join(dir, "kind-"+kind), child, n, kind, watch)
		if err != nil {
			return fmt.Errorf("health checks of kind %q: %w", kind, err)
		}
		figure, target, of := fmt.Sprintf("%d health checks by %s every 10 s: processor time", n, kind), "2 % of a core", used.Seconds()/watch.Seconds()/0.02
		if kind == "" {
			figure, target, of = fmt.Sprintf("%d servers without health checks: processor time", n), "-", 0
		}
		rows = append(rows, row{figure, fmt.Sprintf("%.0f ms in %s, %.2f %%; %.1f MiB", used.Seconds()*1000, watch, 100*used.Seconds()/watch.Seconds(), memory), "-", target, "-", of})
	}
	print(rows)
	return nil
}

func healthCost(ctx context.Context, bin, dir, child string, n int, kind string, watch time.Duration) (used time.Duration, memory float64, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, 0, err
	}
	l := &lab.Lab{Dir: dir, Bin: bin}
	defer func() { err = errors.Join(err, l.Close()) }()
	module := lab.Module{
		"modulename": "servant:*", "command": []string{child}, "ports": []string{"http"}, "starttimeout": "5m",
	}
	if kind != "" {
		module["health"] = map[string]any{"ready": map[string]string{"kind": kind, "port": "http"}}
	}
	var needs []lab.Need
	for i := range n {
		needs = append(needs, lab.Need{InstanceName: "Servant-" + strconv.Itoa(i), ModuleName: "servant:" + strconv.Itoa(i)})
	}
	manager, err := l.StartLANManager("lan", needs)
	if err != nil {
		return 0, 0, err
	}
	observer, err := lab.Observe(ctx, manager.Address)
	if err != nil {
		return 0, 0, err
	}
	defer observer.Close()
	if _, err := l.WriteAgent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"servant": module}, Config: map[string]any{"log": map[string]string{"level": "warn"}}}); err != nil {
		return 0, 0, err
	}
	agent, err := l.StartAgent("machine")
	if err != nil {
		return 0, 0, err
	}
	if err := observer.Await(ctx, fmt.Sprintf("%d services", n), func(m *table.Mirror) bool { return m.Len() == n }); err != nil {
		return 0, 0, err
	}
	p, pause := process(agent.Program.PID()), func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := pause(10 * time.Second); err != nil { // by then each has been asked once
		return 0, 0, err
	}
	before := p.cpu()
	if err := pause(watch); err != nil {
		return 0, 0, err
	}
	return p.cpu() - before, p.pss(), nil
}
