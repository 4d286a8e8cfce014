package lanmanager

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/lan/wire"
)

// connection is a peer's connection: read in one goroutine, written in another,
// and in the core the channel that stands for it.
type connection struct {
	conn    wire.Conn
	log     hclog.Logger
	limits  Limits
	metrics *metrics
	writers *sync.Pool    // of *unitWriter
	wake    chan struct{} // there is something in queue
	drop    func()        // ends the connection and does not wait for that
	gone    chan struct{} // closed when the reader ends

	// The core's.
	channel *wire.Channel
	pending []wire.Unit // for the peer, from this turn of the core
	size    int         // bytes that were to be in pending, roughly

	mu      sync.Mutex
	queue   []wire.Unit // for the peer, waiting for the writer
	waiting int         // bytes in queue and in the writer's hands, roughly
	writing int         // those of them that are in the writer's hands
}

// read parses what the peer sends and posts it, until the connection or ctx
// ends, and closes the connection.
func (c *connection) read(ctx context.Context, silence time.Duration, post func(func()) bool) error {
	stop := context.AfterFunc(ctx, func() { c.conn.Close() }) // it may wait for a write
	defer stop()
	defer close(c.gone)
	defer c.conn.Close()
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return err
		}
		texts, err := c.conn.Read()
		if err != nil {
			return err
		}
		units := c.parse(texts)
		if len(units) == 0 { // a keep-alive of the envelope, or nothing that counts
			continue
		}
		c.metrics.unitsIn.Add(float64(len(units)))
		if !post(func() { c.receive(units) }) {
			return ctx.Err()
		}
	}
}

func (c *connection) parse(texts [][]byte) []wire.Unit {
	units := make([]wire.Unit, 0, len(texts))
	for _, text := range texts {
		u, err := wire.ParseRequest(text, c.limits.Wire)
		switch {
		case err == nil:
			units = append(units, u)
		case errors.Is(err, wire.ErrNotUnit):
			units = append(units, wire.Unit{Kind: wire.Forget, Value: bytes.TrimSpace(text)})
		default:
			c.log.Debug("unit ignored", "peer", c.conn.RemoteAddr(), "error", err)
		}
	}
	return units
}

func (c *connection) receive(units []wire.Unit) {
	for _, u := range units {
		c.channel.Receive(u)
	}
}

func (c *connection) closed(cause error) {
	c.tellTimeout("peer is silent and is dropped", cause)
	c.log.Debug("connection ended", "peer", c.conn.RemoteAddr(), "cause", cause)
	c.channel.Close()
}

// tellTimeout logs an end that is our doing; other ends are the peer's.
func (c *connection) tellTimeout(what string, cause error) {
	var late net.Error
	if errors.As(cause, &late) && late.Timeout() {
		c.log.Warn(what, "peer", c.conn.RemoteAddr())
	}
}

// send keeps a unit for the end of this turn. What is beyond the backlog is not
// even kept: flush drops the peer.
func (c *connection) send(u wire.Unit) {
	const frame = 100 // of a unit around its value, roughly
	if c.size += frame + len(u.Value); c.size <= c.limits.Backlog {
		c.pending = append(c.pending, u)
	}
}

// flush hands what this turn of the core has for the peer to the writer. A peer
// that lets too much wait is dropped.
func (c *connection) flush() {
	c.mu.Lock()
	c.queue = append(c.queue, c.pending...)
	c.waiting += c.size
	waiting := c.waiting
	c.mu.Unlock()
	c.pending, c.size = emptied(c.pending), 0
	if waiting > c.limits.Backlog {
		c.metrics.dropped.Inc()
		c.log.Warn("peer does not read what it is sent and is dropped",
			"peer", c.conn.RemoteAddr(), "bytes", waiting)
		c.drop()
		c.channel.Close()
		return
	}
	select {
	case c.wake <- struct{}{}:
	default: // the writer has not looked yet and will find this too
	}
}

// emptied is units for the next time. A burst is no reason to keep its room.
func emptied(units []wire.Unit) []wire.Unit {
	const enough = 64
	if cap(units) > enough {
		return nil
	}
	clear(units)
	return units[:0]
}

// write writes what is in the queue, all that is there at once, until the
// reader ends.
func (c *connection) write() {
	var units []wire.Unit
	for {
		select {
		case <-c.wake:
		case <-c.gone:
			return
		}
		units = c.take(units)
		c.metrics.unitsOut.Add(float64(len(units)))
		w := c.writers.Get().(*unitWriter)
		err := w.write(c.conn, units)
		c.writers.Put(w)
		if err != nil {
			c.tellTimeout("peer does not take what it is sent and is dropped", err)
			c.conn.Close() // the reader notices
			return
		}
	}
}

// take exchanges the queue for the units that were written before.
func (c *connection) take(written []wire.Unit) []wire.Unit {
	c.mu.Lock()
	defer c.mu.Unlock()
	units := c.queue
	c.queue = emptied(written)
	c.waiting -= c.writing
	c.writing = c.waiting
	return units
}

// unitWriter turns units into texts, in memory that it uses again. Connections
// share a few of them: most have nothing to write most of the time.
type unitWriter struct {
	texts  [][]byte
	buffer []byte
}

func (w *unitWriter) write(conn wire.Conn, units []wire.Unit) error {
	const enough = 64 << 10 // bytes in memory at one time, if no single unit has more: about a frame
	for len(units) > 0 {
		w.texts, w.buffer = w.texts[:0], w.buffer[:0]
		for len(units) > 0 && len(w.buffer) < enough {
			from := len(w.buffer)
			w.buffer = units[0].AppendJSON(w.buffer)
			w.texts = append(w.texts, w.buffer[from:])
			units = units[1:]
		}
		if err := conn.Write(w.texts); err != nil {
			return err
		}
	}
	return nil
}
