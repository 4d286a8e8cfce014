// Command lanmanager runs the LAN manager until Ctrl-C or SIGTERM.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/lanmanager"
)

func main() {
	directory := flag.String("directory", ".", "directory that holds .allexlanmanager with the LAN manager's files")
	listen := flag.String("listen", lanmanager.DefaultListen, "host:port to listen on for WebSockets")
	level := flag.String("log-level", "info", "trace, debug, info, warn or error")
	flag.Parse()
	if flag.NArg() > 0 || hclog.LevelFromString(*level) == hclog.NoLevel {
		fmt.Fprintf(os.Stderr, "lanmanager: no arguments are taken, and --log-level is trace, debug, info, warn or error\n")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	m, err := lanmanager.New(lanmanager.Config{
		Directory: *directory, Listen: *listen,
		Logger: hclog.New(&hclog.LoggerOptions{Name: "lanmanager", Level: hclog.LevelFromString(*level)}),
	})
	if err == nil {
		err = m.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lanmanager:", err)
		os.Exit(1)
	}
}
