package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/hashicorp/go-hclog"
)

// reloadOn has the agent read its files again at each signal, until stop is
// called. What that did, the agent logs.
func (m *machine) reloadOn(sig os.Signal, log hclog.Logger) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, sig)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range signals {
			if _, err := m.agent.Reload(context.Background(), false); err != nil {
				log.Error("the files can not be read again", "error", err)
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-ended
	}
}
