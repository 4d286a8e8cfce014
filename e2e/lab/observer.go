package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// Observer is a client of a LAN manager that only looks: it mirrors the table
// of services and remembers when what changed.
type Observer struct {
	client *wire.Client
	stop   context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	mirror  *table.Mirror
	changes []ServiceChange
	changed chan struct{} // closed and renewed at every change
}

// ServiceChange is a change of the table of services.
type ServiceChange struct {
	At       time.Time
	Instance string
	Up       bool
	Service  table.Service // if Up
}

// Observe begins to look at a LAN manager. Its session has an id, so that it
// wipes nothing (design section 8).
func Observe(ctx context.Context, address string) (*Observer, error) {
	conn, err := wire.Dial(ctx, "ws://"+address+"/", wire.DialOptions{})
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	o := &Observer{
		client: wire.NewClient(conn, wire.ClientOptions{}),
		stop:   stop, ended: make(chan struct{}),
		mirror: table.NewMirror(table.Services), changed: make(chan struct{}),
	}
	go func() {
		defer close(o.ended)
		_ = o.client.Run(running)
	}()
	root, err := o.client.Introduce(ctx, map[string]any{"ip": map[string]string{"name": "observer", "role": "user", "id": "observer"}})
	if err == nil {
		var services *wire.Session
		if services, err = root.Sub(ctx, "services", map[string]string{"role": "user"}); err == nil {
			go func() { // ends with the client
				_ = services.Query(running, map[string]any{"continuous": true}, o.take)
			}()
		}
	}
	if err != nil {
		o.Close()
		return nil, fmt.Errorf("observer: %w", err)
	}
	return o, o.Await(ctx, "the table has been read", (*table.Mirror).Complete)
}

// Close ends the observation.
func (o *Observer) Close() {
	o.stop()
	<-o.ended
}

func (o *Observer) take(item json.RawMessage) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	changes, err := o.mirror.Apply(item)
	if err != nil {
		return
	}
	for _, c := range changes {
		s := ServiceChange{At: now, Instance: c.Key, Up: c.Kind != table.Deleted}
		if s.Up {
			s.Service = table.ParseService(c.New)
		}
		o.changes = append(o.changes, s)
	}
	close(o.changed)
	o.changed = make(chan struct{})
}

// Changes are all changes since the beginning.
func (o *Observer) Changes() []ServiceChange {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changes[:len(o.changes):len(o.changes)]
}

// Services is the table as it is.
func (o *Observer) Services() map[string]table.Service {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make(map[string]table.Service, o.mirror.Len())
	for key, record := range o.mirror.All() {
		all[key] = table.ParseService(record)
	}
	return all
}

// Await waits until the table is as wanted.
func (o *Observer) Await(ctx context.Context, what string, wanted func(*table.Mirror) bool) error {
	for {
		o.mu.Lock()
		changed, done := o.changed, wanted(o.mirror)
		o.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-o.client.Lost():
			return fmt.Errorf("the LAN manager was lost before %s", what)
		case <-ctx.Done():
			return fmt.Errorf("%s: it did not come to that; the services are: %s", what, names(o.Services()))
		}
	}
}

// AwaitAgain waits until an instance has gone down and is up again, after the
// first seen changes.
func (o *Observer) AwaitAgain(ctx context.Context, seen int, instance string) error {
	return o.Await(ctx, instance+" is served again", func(*table.Mirror) bool {
		down, up := false, false
		for _, c := range o.changes[seen:] {
			if c.Instance == instance {
				down, up = down || !c.Up, down && c.Up
			}
		}
		return up
	})
}

func names(all map[string]table.Service) string {
	if len(all) == 0 {
		return "none"
	}
	var b strings.Builder
	for name := range all {
		if b.Len() > 500 {
			fmt.Fprintf(&b, "... (%d)", len(all))
			break
		}
		b.WriteString(name + " ")
	}
	return b.String()
}

// ChangesLocked is Changes for a condition of Await.
func (o *Observer) ChangesLocked() []ServiceChange { return o.changes }
