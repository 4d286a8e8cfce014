// Command lanmanager runs the LAN manager until Ctrl-C or SIGTERM.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/allexgo/machine-agent/lanmanager"
)

// version is set by the build.
var version = "devel"

func main() {
	config, guided, err := configure()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lanmanager:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if guided {
		signal.Ignore(os.Interrupt)
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	m, err := lanmanager.New(config)
	if err == nil {
		err = m.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lanmanager:", err)
		os.Exit(1)
	}
}
