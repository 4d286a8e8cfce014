//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// caller is a client of a LAN manager that calls what it likes. Its session has
// an id, so that it wipes nothing.
type caller struct {
	lan  *wire.Session
	stop func() // and wait
}

// call connects to a LAN manager, until the test ends.
func (s *stage) caller(m *lab.LANManager, id string) *caller {
	s.t.Helper()
	conn, err := wire.Dial(s.ctx, "ws://"+m.Address+"/", wire.DialOptions{LocalIP: net.IPv4(127, 0, 0, 1)})
	s.must(err)
	client := wire.NewClient(conn, wire.ClientOptions{})
	ctx, cancel := context.WithCancel(s.ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = client.Run(ctx) })
	c := &caller{stop: func() { cancel(); running.Wait() }}
	s.t.Cleanup(c.stop)
	c.lan, err = client.Introduce(s.ctx, map[string]any{"ip": map[string]string{"name": id, "role": "user", "id": id}})
	s.must(err)
	return c
}

// business calls a method of the LAN manager.
func (c *caller) business(ctx context.Context, method string, arg any) error {
	_, err := c.lan.Call(ctx, wire.Business, method, arg)
	return err
}

// needs reads the table of needs.
func (c *caller) needs(s *stage) map[string]table.Need {
	s.t.Helper()
	session, err := c.lan.Sub(s.ctx, "needs", map[string]string{})
	s.must(err)
	mirror := table.NewMirror(table.Needs)
	var odd error
	s.must(session.Query(s.ctx, map[string]bool{"continuous": false}, func(item json.RawMessage) {
		_, err := mirror.Apply(item)
		odd = errors.Join(odd, err)
	}))
	s.must(odd)
	all := map[string]table.Need{}
	for key, record := range mirror.All() {
		all[key] = table.ParseNeed(record)
	}
	return all
}
