package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// stepWithin is how long the LAN manager may take for each step of the
// beginning: the dial, the introduction, a subscription, the first item of the
// first reading, the next one.
const stepWithin = 10 * time.Second

// session is one session with a LAN manager, from the introduction to the
// loss of its connection.
type session struct {
	address string // of the LAN manager
	seenAs  string
	root    *wire.Session
	needs   *wire.Session
	bids    sync.WaitGroup // that have not ended; grows only while the session is the current one

	// The mirrors belong to the goroutine that reads the connection.
	needTable, serviceTable *table.Mirror
	up                      bool
	late                    *time.Timer   // until they have been read: no item came for stepWithin
	read                    chan struct{} // closed when both have been read

	nat *natTable
}

// session holds one session until it is lost. up tells whether it got as far
// as having read the tables. The error is never nil.
func (l *Link) session(ctx context.Context, address string) (up bool, err error) {
	conn, err := l.reach(ctx, address)
	if err != nil {
		return false, err
	}
	client := wire.NewClient(conn, wire.ClientOptions{Logger: l.Logger})
	running, stop := context.WithCancel(ctx)
	lost := make(chan error, 1)
	go func() { lost <- client.Run(running) }()

	s := &session{
		address:      address,
		needTable:    table.NewMirror(table.Needs),
		serviceTable: table.NewMirror(table.Services),
		read:         make(chan struct{}),
		nat:          newNATTable(),
	}
	queries := make(chan error, 2)
	err = l.begin(running, s, client, queries)
	if err == nil {
		select {
		case err = <-queries:
		case <-s.root.Done():
			err = s.root.Err()
		}
	}
	l.leaveSession(s)
	stop()
	cause := <-lost
	s.bids.Wait()
	if errors.Is(err, wire.ErrLost) || errors.Is(err, context.Canceled) {
		err = cause
	}
	return s.up, fmt.Errorf("session with the LAN manager at %s: %w", address, err)
}

// begin introduces the agent and subscribes to the tables.
func (l *Link) begin(ctx context.Context, s *session, client *wire.Client, queries chan error) error {
	credentials := map[string]any{"ip": map[string]string{"name": l.Name, "role": "user", "id": l.ID}}
	within, stop := context.WithTimeout(ctx, stepWithin)
	root, err := client.Introduce(within, credentials)
	stop()
	if err != nil {
		return describe("introduction", err)
	}
	s.root = root
	if name, ok := root.State("name"); ok {
		_ = json.Unmarshal(name, &s.seenAs) // a name that is no string leaves it empty
	}
	if s.needs, err = s.sub(ctx, "needs"); err != nil {
		return describe("subscription to needs", err)
	}
	services, err := s.sub(ctx, "services")
	if err != nil {
		return describe("subscription to services", err)
	}
	s.late = time.NewTimer(stepWithin)
	defer s.late.Stop()
	l.follow(ctx, s, s.needs, s.onNeed, queries)
	l.follow(ctx, s, services, s.onService, queries)
	select {
	case <-s.read:
		return nil
	case <-s.late.C:
		return describe("reading of the tables", context.DeadlineExceeded)
	case err := <-queries:
		return describe("reading of the tables", err)
	}
}

// sub opens a session with a table, as a step.
func (s *session) sub(ctx context.Context, table string) (*wire.Session, error) {
	within, stop := context.WithTimeout(ctx, stepWithin)
	defer stop()
	return s.root.Sub(within, table, map[string]string{"role": "user"})
}

// describe says at which step a session failed, and what a silent or an
// unwilling peer means.
func describe(step string, err error) error {
	if timedOut(err) {
		return fmt.Errorf("%s: no answer within %s: what listens there is overloaded, or does not speak like a LAN manager", step, stepWithin)
	}
	if errors.Is(err, wire.ErrRefused) {
		return fmt.Errorf("%s: %w; it admits only the addresses that its file `.allexlanmanager/subnets` names: add this machine's there", step, err)
	}
	return fmt.Errorf("%s: %w", step, err)
}

// timedOut tells of both kinds of deadline: that of a context, and that which
// the WebSocket sets on its connection for it.
func timedOut(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// errQueryEnded is the end of a query that nobody asked for.
var errQueryEnded = errors.New("the LAN manager ended a query")

// follow keeps a continuous query. Its items are taken by the reading
// goroutine, one after the other.
func (l *Link) follow(ctx context.Context, s *session, data *wire.Session, take func(json.RawMessage) ([]Event, error), queries chan<- error) {
	l.tasks.Go(func() {
		err := data.Query(ctx, map[string]any{"continuous": true}, func(item json.RawMessage) {
			if !s.up {
				s.late.Reset(stepWithin)
			}
			events, err := take(item)
			if err != nil {
				l.Logger.Warn("odd item from the LAN manager is left out", "item", excerpt(item), "error", err)
			}
			if s.up {
				for _, e := range events {
					l.emit(ctx, e)
				}
			} else if s.needTable.Complete() && s.serviceTable.Complete() {
				s.up = true
				s.late.Stop() // that the owner takes it late is not the LAN manager's
				up := s.snapshot()
				up.attend = func() { l.attend(s) }
				l.emit(ctx, up)
				close(s.read)
			}
		})
		if err == nil {
			err = errQueryEnded
		}
		queries <- err
	})
}

// snapshot is the state of both tables at the end of the first reading.
func (s *session) snapshot() Up {
	up := Up{LANManager: s.address, SeenAs: s.seenAs}
	for _, r := range s.needTable.All() {
		if n := table.ParseNeed(r); open(n) {
			up.Needs = append(up.Needs, n)
		}
	}
	for _, r := range s.serviceTable.All() {
		if v := table.ParseService(r); !phantom(v) {
			up.Services = append(up.Services, v)
		}
	}
	return up
}

// open tells whether a record of the table of needs waits for a bidder. One
// with a pid has a winner, whose address and ports stand where the need's
// constraints stood.
func open(n table.Need) bool { return n.PID == 0 && !n.Closed }

// phantom tells whether a record of the table of services is one that nobody
// serves: the original makes such a one of every open need that is removed (PROTOCOL
// section 7).
func phantom(s table.Service) bool { return s.IPAddress == "" }

// onNeed takes one item of the table of needs.
func (s *session) onNeed(item json.RawMessage) ([]Event, error) {
	changes, err := s.needTable.Apply(item)
	var events []Event
	for _, c := range changes {
		if c.Kind == table.Deleted {
			events = append(events, NeedGone{c.Key})
			continue
		}
		n := table.ParseNeed(c.New)
		switch {
		case !open(n):
			// A winner comes field by field; the first says it all.
			if c.Kind == table.Created || open(table.ParseNeed(c.Old)) {
				events = append(events, NeedTaken{c.Key})
			}
		case c.Kind == table.Created || c.FromRead:
			events = append(events, NeedOpened{n})
		}
	}
	return events, err
}

// onService takes one item of the table of services.
func (s *session) onService(item json.RawMessage) ([]Event, error) {
	changes, err := s.serviceTable.Apply(item)
	var events []Event
	for _, c := range changes {
		if c.Kind != table.Deleted {
			if v := table.ParseService(c.New); !phantom(v) {
				events = append(events, ServiceSet{v})
				continue
			}
		}
		if c.Kind != table.Created && !phantom(table.ParseService(c.Old)) {
			events = append(events, ServiceGone{c.Key})
		}
	}
	return events, err
}
