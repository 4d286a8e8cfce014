//go:build !linux

package main

import (
	"context"
	"os"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/agent/port"
)

// fdStore is for systemd, which is on Linux only.
type fdStore struct{}

func newFDStore(hclog.Logger) *fdStore { return nil }

func (*fdStore) depot() port.Depot { return nil }

func (*fdStore) run(context.Context) {}

func stored() map[int]*os.File { return nil }
