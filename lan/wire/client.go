package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// Out-of-band units can come before the session that they are about. So many
// of them are kept, the latest, and none with more data than that.
const (
	earlyUnits = 1024
	stateBytes = 4 << 10
	stateCount = 256 // states of one session
)

// ClientOptions of NewClient; the zero value is good.
type ClientOptions struct {
	Ping    time.Duration // between two pings; default 10 s
	Silence time.Duration // after so long without a unit the connection is lost; default 20 s
	Limits  Limits
	Logger  hclog.Logger // default: none
}

// Client is the calling side of one connection (PROTOCOL sections 2 to 5, 10,
// 13). Its methods and those of its sessions may be called from any goroutine,
// also before Run; they are answered while Run runs.
type Client struct {
	conn    Conn
	options ClientOptions
	log     hclog.Logger
	began   time.Time
	wake    chan struct{} // capacity 1: there is something in queue
	lost    chan struct{} // closed when cause is set

	mu            sync.Mutex
	cause         error    // of the loss, wrapped in ErrLost
	queue         [][]byte // texts of units to write
	lastID        uint64
	calls         map[string]*call
	introductions []*call // those with credentials, the oldest first
	refused       bool    // the last unit rejected an introduction by its id
	sessions      map[string]*Session
	early         []Unit // out-of-band units of sessions that are not known, the oldest first
}

// NewClient returns a client that owns conn: it alone reads, writes and closes
// it.
func NewClient(conn Conn, o ClientOptions) *Client {
	if o.Ping <= 0 {
		o.Ping = 10 * time.Second
	}
	if o.Silence <= 0 {
		o.Silence = 20 * time.Second
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	o.Limits = o.Limits.orDefault()
	return &Client{
		conn:     conn,
		options:  o,
		log:      o.Logger,
		began:    time.Now(),
		wake:     make(chan struct{}, 1),
		lost:     make(chan struct{}),
		calls:    make(map[string]*call),
		sessions: make(map[string]*Session),
	}
}

// Run reads and writes until ctx ends or the connection is lost, and returns
// why. Then every call has failed with ErrLost, every session is done, the
// connection is closed and no goroutine of the client is left. It must be
// called once.
func (c *Client) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var pumps sync.WaitGroup
	pumps.Go(func() { cancel(c.write(ctx)) })
	pumps.Go(func() {
		<-ctx.Done()
		c.lose(context.Cause(ctx))
		c.conn.Close() // wakes the reader and the writer
	})
	cancel(c.read())
	pumps.Wait()
	return context.Cause(ctx)
}

// Lost is closed as soon as the connection is lost.
func (c *Client) Lost() <-chan struct{} { return c.lost }

// Introduce creates a session (PROTOCOL section 3), for example with
// {"ip":{"name":"any_name","role":"user"}}. The states that the server tells of
// a new session are there on return. The error is ErrRefused, with a
// RejectedError where the server gave a reason, or ErrForgotten, ErrLost,
// ErrBusy, or that of ctx.
func (c *Client) Introduce(ctx context.Context, credentials any) (*Session, error) {
	text, err := json.Marshal(credentials)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	var session *Session
	k := newCall(nil)
	k.introduction = true
	k.answered = func(value json.RawMessage) (err error) {
		session, err = c.adopt(value, false)
		return err
	}
	if _, err := c.ask(ctx, k, Unit{Kind: Introduce, Credentials: text}); err != nil {
		return nil, err
	}
	return session, nil
}

// read is the read pump. Any unit counts as life, and any word of the envelope;
// other frames do not.
func (c *Client) read() error {
	alive := true
	for {
		if alive {
			if err := c.conn.SetReadDeadline(time.Now().Add(c.options.Silence)); err != nil {
				return err
			}
		}
		texts, err := c.conn.Read()
		if err != nil {
			if isTimeout(err) {
				return fmt.Errorf("no word from the LAN manager for %s", c.options.Silence)
			}
			return err
		}
		alive = len(texts) == 0
		for _, text := range texts {
			u, err := ParseReply(text, c.options.Limits)
			if err != nil { // its text may hold what must not be logged
				c.log.Debug("ignored what the LAN manager sent", "bytes", len(text), "error", err)
				continue
			}
			alive = true
			c.receive(u)
		}
	}
}

// write is the write pump. All that is queued when it comes round goes
// together.
func (c *Client) write(ctx context.Context) error {
	ping := time.NewTicker(c.options.Ping)
	defer ping.Stop()
	var batch [][]byte
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ping.C:
			n := time.Since(c.began).Milliseconds()
			c.post(Unit{Kind: Ping, Value: strconv.AppendInt(nil, n, 10)})
		case <-c.wake:
		}
		c.mu.Lock()
		batch, c.queue = c.queue, batch[:0]
		c.mu.Unlock()
		if err := c.conn.Write(batch); err != nil {
			return err
		}
		clear(batch)
	}
}

// post queues a unit that expects no answer, if there is room.
func (c *Client) post(u Unit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil && len(c.queue) < c.options.Limits.InFlight {
		c.enqueue(u)
	}
}

func (c *Client) enqueue(u Unit) {
	c.queue = append(c.queue, u.AppendJSON(nil))
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// receive does what a unit asks for. It runs on the reading goroutine.
func (c *Client) receive(u Unit) {
	if u.Kind == Notify {
		c.mu.Lock()
		k := c.calls[u.ID]
		c.mu.Unlock()
		if k != nil {
			k.deliver(u.Value)
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	wasRefused := c.refused
	c.refused = false
	switch u.Kind {
	case Resolve:
		c.resolve(u)
	case Reject:
		c.reject(u)
	case OutOfBand:
		c.outOfBand(u)
	case Forget:
		c.forget(u.Value)
	case AuthFailure:
		// It names no introduction; they are answered in their order. Behind a
		// rejection with an id it is only the original's form of the same.
		if len(c.introductions) > 0 && !wasRefused {
			c.finish(c.introductions[0], nil, ErrRefused)
		}
	case Ping:
		if c.cause == nil && len(c.queue) < c.options.Limits.InFlight {
			c.enqueue(Unit{Kind: Pong, Value: u.Value})
		}
	case Pong:
	default:
		c.log.Debug("ignored a unit of the LAN manager", "kind", u.Kind)
	}
}

func (c *Client) resolve(u Unit) {
	k := c.calls[u.ID]
	if k == nil {
		return // abandoned
	}
	var err error
	if k.answered != nil {
		err = k.answered(u.Value)
	}
	c.finish(k, u.Value, err)
}

func (c *Client) reject(u Unit) {
	k := c.calls[u.ID]
	if k == nil {
		return
	}
	var err error = &RejectedError{Code: u.Code, Message: u.Message}
	if k.introduction {
		err = fmt.Errorf("%w: %w", ErrRefused, err)
		c.refused = true
	}
	c.finish(k, nil, err)
	if k.attaching {
		c.end(k.session, err)
	}
}

func (c *Client) outOfBand(u Unit) {
	if s := c.sessions[u.Session]; s != nil {
		s.outOfBand(u)
		return
	}
	if len(u.Value) > stateBytes {
		return
	}
	if len(c.early) == earlyUnits {
		c.early = slices.Delete(c.early, 0, 1)
	}
	u.Value = slices.Clone(u.Value)
	c.early = append(c.early, u)
}

// forget handles a unit that comes back: the call in it has failed, and the
// session that it names is none.
func (c *Client) forget(echo json.RawMessage) {
	u, err := ParseRequest(echo, c.options.Limits)
	if err != nil {
		c.log.Debug("the LAN manager gave back what is no unit of ours", "bytes", len(echo), "error", err)
		return
	}
	if k := c.calls[u.ID]; k != nil {
		c.finish(k, nil, ErrForgotten)
	}
	if s := c.sessions[u.Session]; s != nil {
		c.end(s, ErrForgotten)
	}
}

// adopt makes the session that value describes known.
func (c *Client) adopt(value json.RawMessage, reserved bool) (*Session, error) {
	s := &Session{client: c, reserved: reserved, done: make(chan struct{})}
	err := rawjson.Members(value, c.options.Limits.Depth, func(key, value []byte) {
		switch string(key) {
		case "session":
			s.id, _ = rawjson.String(value)
		case "role":
			s.role, _ = rawjson.String(value)
		case "modulename":
			s.moduleName, _ = rawjson.String(value)
		}
	})
	switch {
	case err != nil || s.id == "":
		return nil, errors.New("the LAN manager answered without a session")
	case c.sessions[s.id] != nil:
		return nil, errors.New("the LAN manager gave the same session twice")
	}
	c.sessions[s.id] = s
	if !reserved { // nothing can be told of a reserved one before it is introduced
		mine := slices.Clone(c.early)
		c.early = slices.DeleteFunc(c.early, func(u Unit) bool { return u.Session == s.id })
		for _, u := range mine {
			if u.Session == s.id {
				s.outOfBand(u)
			}
		}
	}
	return s, nil
}

// end marks a session as done and fails what waits for it. Once.
func (c *Client) end(s *Session, err error) {
	if s.err != nil {
		return
	}
	s.err = err
	delete(c.sessions, s.id)
	for _, k := range s.calls {
		c.finish(k, nil, err)
	}
	close(s.done)
}

// lose fails everything that waits, now and from now on.
func (c *Client) lose(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cause = fmt.Errorf("%w: %w", ErrLost, cause)
	for _, s := range c.sessions {
		c.end(s, c.cause)
	}
	for _, k := range c.calls {
		c.finish(k, nil, c.cause)
	}
	c.queue, c.early = nil, nil
	close(c.lost)
}
