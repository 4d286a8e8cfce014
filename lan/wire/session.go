package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// Session is a session on the LAN manager (PROTOCOL sections 3 to 5). Its
// methods may be called from any goroutine.
type Session struct {
	client               *Client
	id, role, moduleName string
	done                 chan struct{}

	// The client's mutex guards the rest.
	reserved bool // by subConnect, and not yet introduced
	err      error
	states   map[string]json.RawMessage
	calls    map[string]*call // that wait for an answer
}

// ID is the name of the session on its connection.
func (s *Session) ID() string { return s.id }

// Role is the role that the LAN manager gave the session.
func (s *Session) Role() string { return s.role }

// ModuleName names the kind of service at the other end.
func (s *Session) ModuleName() string { return s.moduleName }

// Done is closed when the session is over.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err says why the session is over: ErrEnded, ErrForgotten, ErrLost, or what
// became of its introduction. It is nil before.
func (s *Session) Err() error {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	return s.err
}

// State returns a state that the LAN manager told of the session, such as
// "name" or "haveneeds".
func (s *Session) State(name string) (json.RawMessage, bool) {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	value, ok := s.states[name]
	return value, ok
}

// Call calls a method and waits for its result. The target is Business or
// Protocol. The error is a RejectedError, ErrForgotten, ErrEnded, ErrLost,
// ErrBusy, or that of ctx; with the last, the call may have had its effect. The
// result is valid until its receiver lets it go.
func (s *Session) Call(ctx context.Context, target, method string, args ...any) (json.RawMessage, error) {
	return s.do(ctx, newCall(s), target, method, args)
}

func (s *Session) do(ctx context.Context, k *call, target, method string, args []any) (json.RawMessage, error) {
	if target != Business && target != Protocol {
		return nil, fmt.Errorf("call of %s: no target but %q and %q is safe, %q ends the real LAN manager", method, Business, Protocol, target)
	}
	u := Unit{Kind: Call, Target: target, Method: method, Args: make([]json.RawMessage, len(args))}
	for i, arg := range args {
		var err error
		if u.Args[i], err = json.Marshal(arg); err != nil {
			return nil, fmt.Errorf("argument %d of %s: %w", i+1, method, err)
		}
	}
	return s.client.ask(ctx, k, u)
}

// Sub opens a session with a subservice of this one (PROTOCOL section 4). Of a
// name that does not exist the LAN manager says nothing until it does, so that
// ctx is the only way out.
//
// The new session introduces itself and confirms its reservation in the same
// frame as its first call, which saves a round trip (PROTOCOL section 17). If
// the LAN manager takes that badly the session ends.
func (s *Session) Sub(ctx context.Context, name string, identity any) (*Session, error) {
	var sub *Session
	k := newCall(s)
	k.answered = func(value json.RawMessage) error {
		var introduce json.RawMessage
		err := rawjson.Members(value, len(value), func(key, value []byte) {
			if string(key) == "introduce" {
				introduce = value
			}
		})
		if err == nil {
			sub, err = s.client.adopt(introduce, true)
		}
		return err
	}
	if _, err := s.do(ctx, k, Protocol, "subConnect", []any{name, identity}); err != nil {
		return nil, err
	}
	return sub, nil
}

// Query runs a query (PROTOCOL section 6), for example {"continuous":true},
// until it is resolved (nil), rejected, ctx or the session ends.
//
// Item gets every item in the order of the wire, on the reading goroutine: while
// it blocks nothing else is received, and the LAN manager has to wait. It must
// return when ctx ends and must not call the client. It does not run any more
// when Query has returned.
func (s *Session) Query(ctx context.Context, q any, item func(json.RawMessage)) error {
	k := newCall(s)
	k.item = item
	_, err := s.do(ctx, k, Protocol, "query", []any{q})
	id := k.stop()
	if ctx.Err() != nil && id != "" {
		s.closeQuery(id)
	}
	return err
}

// closeQuery tells the LAN manager that nobody listens, and does not wait.
func (s *Session) closeQuery(id string) {
	_ = s.client.start(newCall(s), Unit{
		Kind: Call, Target: Protocol, Method: "closeQuery",
		Args: []json.RawMessage{rawjson.AppendString(nil, id)},
	})
}

// Die ends the session. That the LAN manager does not know it any more is as
// good as its word that it is dead.
func (s *Session) Die(ctx context.Context) error {
	_, err := s.Call(ctx, Protocol, "die")
	if err != nil && (s.Err() == nil || errors.Is(err, ErrLost)) {
		return err
	}
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	s.client.end(s, ErrEnded)
	return nil
}

// outOfBand takes a unit about the session. The client's mutex is held.
func (s *Session) outOfBand(u Unit) {
	switch u.Channel {
	case EndChannel:
		s.client.end(s, ErrEnded)
	case StateChannel:
		s.applyState(u.Value)
	default:
		s.client.log.Debug("ignored an out-of-band unit of the LAN manager", "channel", u.Channel)
	}
}

// applyState follows the state stream {"p":path,"o":operation,"d":data}. Only
// scalars directly under the session are kept; the LAN manager has no others.
func (s *Session) applyState(change json.RawMessage) {
	var path, data json.RawMessage
	var operation string
	err := rawjson.Members(change, len(change), func(key, value []byte) {
		switch string(key) {
		case "p":
			path = value
		case "o":
			operation, _ = rawjson.String(value)
		case "d":
			data = value
		}
	})
	names, ok := inner(path, 1)
	if err != nil || !ok || len(names) != 1 {
		return
	}
	name, _ := rawjson.String(names[0])
	switch operation {
	case "u": // [new, old]
		if both, ok := inner(data, 1); ok {
			s.setState(name, both[0])
		}
	case "s":
		s.setState(name, data)
	case "sr":
		delete(s.states, name)
	}
}

func (s *Session) setState(name string, value json.RawMessage) {
	_, known := s.states[name]
	if len(name)+len(value) > stateBytes || !known && len(s.states) >= stateCount {
		return
	}
	if s.states == nil {
		s.states = make(map[string]json.RawMessage)
	}
	s.states[name] = slices.Clone(value) // the frame can go
}
