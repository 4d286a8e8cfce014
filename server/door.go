package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/credentials"
)

// How many connections may be open. Each costs the agent two descriptors; a
// well-behaved caller needs one connection.
const (
	connectionLimit = 256     // of one process
	connectionsMost = 4 << 10 // of all, and no more than an eighth of the descriptors that the agent may have
)

// door is where connections come in: the place at which the caller at the other
// end is identified, and the list of those that are inside. It is the server's
// credentials.TransportCredentials. Nothing is encrypted: what passes through
// the socket never leaves the machine.
type door struct {
	log    hclog.Logger
	most   int // connections
	mu     sync.Mutex
	inside map[*connection]struct{}
	byPID  map[int]int // how many of inside each process has
	closed bool
}

func newDoor(log hclog.Logger) *door {
	return &door{log: log, most: min(connectionsMost, mostDescriptors()/8), inside: make(map[*connection]struct{}), byPID: make(map[int]int)}
}

// connection is a caller's connection; with it the hold on the caller's process
// ends.
type connection struct {
	net.Conn
	door   *door
	caller *caller
	once   sync.Once
}

// ServerHandshake asks the operating system who is at the other end. It runs on
// the connection's own goroutine, and nothing is read before it.
func (d *door) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if a, ok := raw.(interface{ meet() }); ok {
		a.meet()
	}
	c, err := d.open(raw)
	if err != nil {
		d.log.Debug("connection refused", "error", err)
		return nil, nil, err
	}
	return c, c.caller, nil
}

func (d *door) open(raw net.Conn) (*connection, error) {
	who, err := identify(raw)
	if err != nil {
		return nil, fmt.Errorf("who calls is not known: %w", err)
	}
	c := &connection{Conn: raw, door: d, caller: who}
	if err := d.enter(c); err != nil {
		who.pin.release()
		return nil, err
	}
	return c, nil
}

func (d *door) enter(c *connection) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("the server is leaving")
	}
	if pid := c.caller.pid; pid > 0 && d.byPID[pid] >= connectionLimit {
		return fmt.Errorf("process %d has %d connections open already", pid, connectionLimit)
	}
	if len(d.inside) >= d.most {
		return fmt.Errorf("%d connections are open already", d.most)
	}
	d.inside[c] = struct{}{}
	d.byPID[c.caller.pid]++
	return nil
}

func (d *door) leave(c *connection) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.inside, c)
	if d.byPID[c.caller.pid]--; d.byPID[c.caller.pid] == 0 {
		delete(d.byPID, c.caller.pid)
	}
}

// count is how many connections are open.
func (d *door) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.inside)
}

// shut closes every connection and lets no other in.
func (d *door) shut() {
	d.mu.Lock()
	d.closed = true
	all := make([]*connection, 0, len(d.inside))
	for c := range d.inside {
		all = append(all, c)
	}
	d.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}

// Close may be called twice.
func (c *connection) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.caller.pin.release()
		c.door.leave(c)
	})
	return err
}

// ClientHandshake refuses: the door has one side.
func (d *door) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("the server's credentials are not for clients")
}

// Info describes the door to gRPC.
func (d *door) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "local"}
}

// Clone returns the door itself: there is one, shared by all connections.
func (d *door) Clone() credentials.TransportCredentials { return d }

// OverrideServerName has nothing to override.
func (d *door) OverrideServerName(string) error { return nil }
