//go:build linux

// Command bench measures the agent against the figures of its design, and the
// LAN manager under many agents, with the real programs of ./bin on this
// machine's loopback: tables, with the targets and the best of the peers as
// they were measured on a machine of two cores. The part of the agent needs a C
// compiler for the children, which stamp the moment in which they enter main,
// so that observing a thousand of them costs nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	part, arguments := "", os.Args[1:]
	if len(arguments) > 0 && !strings.HasPrefix(arguments[0], "-") {
		part, arguments = arguments[0], arguments[1:]
	}
	if part == "echo" && len(arguments) == 1 { // benchAPI has started us
		fmt.Fprintln(os.Stderr, "bench:", serveEcho(arguments[0]))
		os.Exit(1)
	}
	n := flag.Int("n", 1000, "needs of the agent")
	kills := flag.Int("kills", 40, "single kills for each figure of latency of the agent")
	idle := flag.Duration("idle", 30*time.Second, "how long to watch the agent do nothing")
	var lan lanSize
	flag.IntVar(&lan.needs, "needs", 10000, "needs of the LAN manager")
	flag.IntVar(&lan.agents, "agents", 500, "agents of the LAN manager")
	flag.IntVar(&lan.mirrors, "mirrors", 5, "agents that keep full mirrors of its tables")
	flag.IntVar(&lan.changes, "changes", 100, "single changes for each figure of latency of the LAN manager")
	programs := flag.String("bin", "bin", "directory of the built programs")
	_ = flag.CommandLine.Parse(arguments) // it exits by itself

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	raiseDescriptors()
	bin, err := filepath.Abs(*programs)
	parts := []struct {
		name  string
		bench func() error
	}{
		{"agent", func() error { return benchAgent(ctx, bin, *n, *kills, *idle) }},
		{"ports", func() error { return benchPorts(ctx, bin, *n) }},
		{"health", func() error { return benchHealth(ctx, bin, *n, *idle) }},
		{"api", func() error { return benchAPI(ctx, bin, *n) }},
		{"lan", func() error { return benchLAN(ctx, bin, lan) }},
	}
	known := part == ""
	for _, p := range parts {
		known = known || p.name == part
	}
	if !known || flag.NArg() > 0 {
		err = errors.New("wanted is: bench [agent | ports | health | api | lan] [flags]")
	}
	for _, p := range parts {
		if err == nil && (part == "" || part == p.name) {
			err = p.bench()
		}
	}
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// raiseDescriptors makes room for a socket and a pidfd a child.
func raiseDescriptors() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
}

// settle is how long memory is left alone before it is looked at, as in the
// measurements of the peers.
const settle = 3 * time.Second
