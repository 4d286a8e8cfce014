package wire

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/netip"
	"strconv"
)

// Gate is the server side of the grammar (PROTOCOL sections 2 to 5): it turns
// the units of its channels into sessions and requests, and knows neither the
// envelope that carries them nor what the requests are about. That is the
// business of the users (User) behind the sessions.
//
// A gate with its channels, sessions and requests belongs to one goroutine.
// It never blocks if the send functions of its channels do not.
type Gate struct {
	introduce Introducer
	limits    Limits
	prefix    string // of all ids, another one in every run
	lastID    uint64
}

// Introducer decides who comes in: it looks at the credentials of an
// introduction and grants something. An error refuses the introduction; code
// and message of a *RejectedError travel to the peer.
type Introducer func(c *Channel, credentials json.RawMessage) (Grant, error)

// Grant is what a session is opened with.
type Grant struct {
	Role       string
	ModuleName string
	User       User
}

// User is what a session stands for on this side.
type User interface {
	// Opened is called before the session's introduction is answered, so what
	// it says with State is there when the answer arrives. A reserved session
	// is opened by the first unit that uses it.
	Opened(s *ServerSession)
	// Call carries out a request, now or later; Request.Unknown answers for
	// methods that there are not. The request's arguments are there only until
	// Call returns, lest one that waits keeps all that came with it.
	Call(r *Request)
	// Closed is called once, when the session has ended in whatever way, also
	// if it was reserved and never opened. Its requests are void from then on.
	Closed()
}

// NewGate returns a gate whose introductions are decided by introduce.
func NewGate(introduce Introducer, l Limits) *Gate {
	prefix := make([]byte, 6)
	_, _ = rand.Read(prefix) // it never fails
	return &Gate{introduce: introduce, limits: l.orDefault(), prefix: hex.EncodeToString(prefix) + "-"}
}

// Open makes a channel for a new connection. What the peer is to get goes
// through send, which must not block.
func (g *Gate) Open(peer netip.Addr, send func(Unit)) *Channel {
	return &Channel{gate: g, peer: peer, send: send, sessions: map[string]*ServerSession{}}
}

// NewID returns an id that no gate has given out before.
func (g *Gate) NewID() string {
	g.lastID++
	return g.prefix + strconv.FormatUint(g.lastID, 36)
}

// Channel is one connection of a gate, with the sessions that live in it.
type Channel struct {
	gate     *Gate
	peer     netip.Addr
	send     func(Unit)
	sessions map[string]*ServerSession
	inFlight int // requests not answered yet
	closed   bool
}

// Peer is the address of the other end.
func (c *Channel) Peer() netip.Addr { return c.peer }

// Receive takes a unit that ParseRequest understood. What was JSON but no unit
// (ErrNotUnit) is given as a Forget with the text as its value, and goes back
// to the peer like this.
func (c *Channel) Receive(u Unit) {
	if c.closed {
		return
	}
	switch u.Kind {
	case Ping:
		c.send(Unit{Kind: Pong, Value: u.Value})
	case Forget:
		c.send(u)
	case Introduce:
		if s := c.attribute(u); s != nil {
			c.send(Unit{Kind: Resolve, ID: u.ID, Value: marshal(introduced{s.id, s.grant.Role, s.grant.ModuleName})})
		}
	case Call:
		if s := c.attribute(u); s != nil {
			s.receive(u)
		}
	}
}

// Close ends all sessions without a word, for the connection is gone.
func (c *Channel) Close() {
	c.closed = true
	c.send = func(Unit) {}
	for _, s := range c.sessions {
		s.close()
	}
}

type introduced struct {
	Session    string `json:"session"`
	Role       string `json:"role"`
	ModuleName string `json:"modulename"`
}

// attribute finds the session that u belongs to, or makes it from u's
// credentials. If it can not, the peer has its answer and nil is returned.
func (c *Channel) attribute(u Unit) *ServerSession {
	s := c.sessions[u.Session]
	if s == nil && u.Credentials != nil {
		var err error
		if s, err = c.introduce(u); err != nil {
			c.refuse(u.ID, err)
			return nil
		}
	}
	if s != nil {
		s.open()
	}
	if s == nil || s.closed {
		c.send(Unit{Kind: Forget, Value: u.AppendJSON(nil)})
		return nil
	}
	return s
}

func (c *Channel) introduce(u Unit) (*ServerSession, error) {
	grant, err := c.gate.introduce(c, u.Credentials)
	if err != nil {
		return nil, err
	}
	s, rejected := c.admit(u.Session, grant)
	if rejected != nil {
		return nil, rejected
	}
	return s, nil
}

// refuse answers an introduction. {"err":{}} has no id: it is for those who
// know the original, and comes last so that who knows both meets the reason
// first.
func (c *Channel) refuse(id string, err error) {
	var rejected *RejectedError
	if !errors.As(err, &rejected) {
		rejected = &RejectedError{Code: "REFUSED", Message: err.Error()}
	}
	c.send(Unit{Kind: Reject, ID: id, Code: rejected.Code, Message: rejected.Message})
	c.send(Unit{Kind: AuthFailure})
}

const maxSessionID = 255 // bytes, of an id that the peer chose

// admit makes the session of a grant; if it can not, the grant's user is closed.
func (c *Channel) admit(id string, g Grant) (*ServerSession, *RejectedError) {
	s := &ServerSession{channel: c, id: id, grant: g}
	switch {
	case len(c.sessions) >= c.gate.limits.Sessions:
		s.close()
		return nil, &RejectedError{Code: "TOO_MANY_SESSIONS", Message: "this connection has too many sessions; end some"}
	case len(id) > maxSessionID:
		s.close()
		return nil, &RejectedError{Code: "SESSION_ID_TOO_LONG", Message: "a session id has at most 255 bytes"}
	}
	for s.id == "" || c.sessions[s.id] != nil { // the peer may have chosen one of ours
		s.id = c.gate.NewID()
	}
	c.sessions[s.id] = s
	return s, nil
}

// ServerSession is a session as the server has it: reserved, then open, then
// closed.
type ServerSession struct {
	channel  *Channel
	id       string
	grant    Grant
	inFlight int
	opened   bool
	closed   bool
}

// State tells the peer a value of the session's state (PROTOCOL section 5).
func (s *ServerSession) State(name string, value any) {
	s.outOfBand(StateChannel, marshal(struct {
		Path  [1]string `json:"p"`
		Op    string    `json:"o"`
		Value any       `json:"d"`
	}{[1]string{name}, "s", value}))
}

// End ends the session from this side and tells the peer. Ending twice is fine.
func (s *ServerSession) End() {
	if s.closed {
		return
	}
	if s.opened {
		s.outOfBand(EndChannel, json.RawMessage("true"))
	}
	s.close()
}

// Dismiss ends the session from this side like End, but leaves it to the caller
// when to tell the peer.
func (s *ServerSession) Dismiss() (tell func()) {
	if s.closed || !s.opened {
		s.close()
		return func() {}
	}
	s.close()
	return func() {
		s.channel.send(Unit{Kind: OutOfBand, Session: s.id, Channel: EndChannel, Value: json.RawMessage("true")})
	}
}

func (s *ServerSession) outOfBand(channel string, data json.RawMessage) {
	if !s.closed {
		s.channel.send(Unit{Kind: OutOfBand, Session: s.id, Channel: channel, Value: data})
	}
}

func (s *ServerSession) open() {
	if !s.opened {
		s.opened = true
		s.grant.User.Opened(s)
	}
}

func (s *ServerSession) close() {
	if s.closed {
		return
	}
	s.closed = true
	s.channel.inFlight -= s.inFlight
	delete(s.channel.sessions, s.id)
	s.grant.User.Closed()
}

// receive hands a call to the user, except for what is the grammar's own.
func (s *ServerSession) receive(u Unit) {
	r := &Request{session: s, id: u.ID, args: u.Args, Method: u.Target + u.Method, name: u.Method}
	s.inFlight++
	s.channel.inFlight++
	switch {
	case r.Method == "!confirmReservation":
		r.Resolve("ok")
	case r.Method == "!die":
		s.End()
		s.channel.send(Unit{Kind: Resolve, ID: r.id, Value: json.RawMessage(`"dead"`)})
	case s.channel.inFlight > s.channel.gate.limits.InFlight:
		r.Reject("TOO_MANY_CALLS", "too many calls of this connection wait for their answer")
	case u.Target != Protocol && u.Target != Business:
		r.Unknown()
	default:
		s.grant.User.Call(r)
	}
	r.args = nil
}
