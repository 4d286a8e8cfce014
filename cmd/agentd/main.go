// Command agentd is the machine agent: one on every machine of a LAN. It only
// starts things; packages agent and server do the work.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// version is set by the build.
var version = "devel"

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // memory is for the services: 2 MiB less with a thousand
	}
	o, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(exitInvalid)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C is not waited for
	code, err := o.run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "agentd:", err)
	}
	os.Exit(code)
}
