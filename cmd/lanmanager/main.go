// Command lanmanager runs the LAN manager until Ctrl-C or SIGTERM.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/allexgo/machine-agent/lanmanager"
)

// version is set by the build.
var version = "devel"

func main() {
	config, err := configure()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lanmanager:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	m, err := lanmanager.New(config)
	if err == nil {
		err = m.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lanmanager:", err)
		os.Exit(1)
	}
}
