// Command agentd is the machine agent: one on every machine of a LAN. It only
// starts things; packages agent and server do the work.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/allexgo/machine-agent/agent/handover"
)

// version is set by the build.
var version = "devel"

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // memory is for the services: 2 MiB less with a thousand
	}
	// Whoever reads our log may end before us: what we say then goes nowhere, and that
	// is no reason to end. (Ignored, the signal would be ignored by all children.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	handed, err := handover.Take()
	if err != nil {
		fmt.Fprintln(os.Stderr, "agentd:", err)
		os.Exit(exitFailed)
	}
	code, err := start(os.Args[1:], inherited{handed})
	if err != nil {
		handed.Back(err)
	}
	os.Exit(code)
}
