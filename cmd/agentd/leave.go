package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// untilAsked is a context that ends when a signal asks us to leave. Who asks a second
// time does not wait: then the system ends us, as it does from deafen on, which tells
// whether we have been asked before. No signal is lost between the two.
func untilAsked() (ctx context.Context, deafen func() (asked bool)) {
	ctx, leave := context.WithCancel(context.Background())
	signals, heard := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer close(heard)
		if _, asked := <-signals; asked {
			signal.Stop(signals)
			leave()
		}
	}()
	return ctx, sync.OnceValue(func() bool {
		signal.Stop(signals) // what is on its way arrives before it returns
		close(signals)
		<-heard
		return ctx.Err() != nil
	})
}
