package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// call is a unit of ours that waits for its answer. All but items and what it
// guards belongs to the client's mutex.
type call struct {
	id           string
	session      *Session                    // nil for an introduction with credentials
	introduction bool                        // with credentials: an AuthFailure can mean it
	attaching    bool                        // to a reserved session: that ends if this fails
	done         chan outcome                // capacity 1; exactly one outcome comes, unless the call is abandoned
	answered     func(json.RawMessage) error // runs on the reading goroutine, before any later unit

	items   sync.Mutex            // held while item runs
	item    func(json.RawMessage) // nil: the caller wants no items, or no more
	queryID string                // the server's name of a query
}

type outcome struct {
	value json.RawMessage
	err   error
}

func newCall(s *Session) *call { return &call{session: s, done: make(chan outcome, 1)} }

// ask sends a unit and waits for its answer. With a ctx that has ended nothing
// is sent.
func (c *Client) ask(ctx context.Context, k *call, u Unit) (json.RawMessage, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := c.start(k, u); err != nil {
		return nil, err
	}
	return c.await(ctx, k)
}

// start gives the call an id and queues its unit.
func (c *Client) start(k *call, u Unit) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch limit := c.options.Limits.InFlight; {
	case c.cause != nil:
		return c.cause
	case k.session != nil && k.session.err != nil:
		return k.session.err
	case len(c.calls) >= limit, len(c.queue) >= limit:
		return ErrBusy
	}
	if s := k.session; s != nil && s.reserved {
		s.reserved = false
		c.attach(s)
	}
	c.register(k, u)
	return nil
}

func (c *Client) register(k *call, u Unit) {
	c.lastID++
	k.id = strconv.FormatUint(c.lastID, 10)
	c.calls[k.id] = k
	if k.introduction {
		c.introductions = append(c.introductions, k)
	}
	u.ID = k.id
	if s := k.session; s != nil {
		u.Session = s.id
		if s.calls == nil {
			s.calls = make(map[string]*call)
		}
		s.calls[k.id] = k
	}
	c.enqueue(u)
}

// attach turns a reserved session into one: it introduces itself with the
// reserved id and confirms the reservation. Nobody waits for the two answers;
// if they are bad the session ends.
func (c *Client) attach(s *Session) {
	for _, u := range []Unit{
		{Kind: Introduce},
		{Kind: Call, Target: Protocol, Method: "confirmReservation", Args: []json.RawMessage{}},
	} {
		k := newCall(s)
		k.attaching = true
		c.register(k, u)
	}
}

// finish gives a call its outcome. The client's mutex is held.
func (c *Client) finish(k *call, value json.RawMessage, err error) {
	c.remove(k)
	k.done <- outcome{value, err}
}

func (c *Client) remove(k *call) {
	delete(c.calls, k.id)
	if k.session != nil {
		delete(k.session.calls, k.id)
	}
	if k.introduction {
		c.introductions = slices.DeleteFunc(c.introductions, func(i *call) bool { return i == k })
	}
}

// await waits for the outcome. When ctx ends first the call is abandoned: its
// id is forgotten, and a late answer ignored.
func (c *Client) await(ctx context.Context, k *call) (json.RawMessage, error) {
	select {
	case o := <-k.done:
		return o.value, o.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case o := <-k.done: // it came in the meantime
		return o.value, o.err
	default:
		c.remove(k)
		return nil, context.Cause(ctx)
	}
}

// deliver hands an item on. It runs on the reading goroutine.
func (k *call) deliver(item json.RawMessage) {
	k.items.Lock()
	defer k.items.Unlock()
	if k.item == nil {
		return
	}
	if k.queryID == "" && bytes.HasPrefix(item, []byte(`["i"`)) {
		k.queryID = queryID(item)
	}
	k.item(item)
}

// stop waits until item does not run, and lets it run no more. It returns the
// server's name of the query, if that is known.
func (k *call) stop() string {
	k.items.Lock()
	defer k.items.Unlock()
	k.item = nil
	return k.queryID
}

// queryID reads it from the first item of a query, ["i", id].
func queryID(item json.RawMessage) string {
	parts, ok := inner(item, 2)
	if !ok {
		return ""
	}
	id, _ := rawjson.String(parts[1])
	return id
}
