package wire

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// ParseRequest reads a unit that a client sends. The error is one of ErrNotJSON,
// ErrNotUnit, ErrTooLarge and ErrTooDeep. Arguments that are no array are one
// argument; null arguments are none.
func ParseRequest(text []byte, l Limits) (Unit, error) {
	parts, err := split(text, l.orDefault())
	if err != nil {
		return Unit{}, err
	}
	if len(parts) < 2 {
		return Unit{}, fmt.Errorf("%w: a request has at least two elements", ErrNotUnit)
	}
	id, ok := rawjson.String(parts[0])
	if !ok || id == "" {
		return Unit{}, fmt.Errorf("%w: the id is no string", ErrNotUnit)
	}
	switch id {
	case "?":
		return beat(Ping, parts[1])
	case "!":
		return beat(Pong, parts[1])
	}
	u := Unit{Kind: Introduce, ID: id}
	if err := u.parseSession(parts[1]); err != nil {
		return Unit{}, err
	}
	if len(parts) > 2 {
		u.Kind = Call
		if err := u.parseCall(parts[2]); err != nil {
			return Unit{}, err
		}
	}
	return u, nil
}

// ParseReply reads a unit that a server sends. The error is one of ErrNotJSON,
// ErrNotUnit, ErrTooLarge and ErrTooDeep.
func ParseReply(text []byte, l Limits) (Unit, error) {
	l = l.orDefault()
	if isAuthFailure(text, l) {
		return Unit{Kind: AuthFailure}, nil
	}
	parts, err := split(text, l)
	if err != nil {
		return Unit{}, err
	}
	if len(parts) < 2 {
		return Unit{}, fmt.Errorf("%w: a reply has at least two elements", ErrNotUnit)
	}
	switch tag, _ := rawjson.String(parts[0]); tag {
	case "?":
		return beat(Ping, parts[1])
	case "!":
		return beat(Pong, parts[1])
	case "f":
		return Unit{Kind: Forget, Value: parts[1]}, nil
	case "oob":
		return parseOutOfBand(parts[1])
	case "~":
		return parsePiece(parts)
	case "r":
		return parseAnswer(Resolve, parts)
	case "n":
		return parseAnswer(Notify, parts)
	case "e":
		return parseAnswer(Reject, parts)
	default:
		return Unit{}, fmt.Errorf("%w: no reply begins with %.20q", ErrNotUnit, parts[0])
	}
}

// split checks the whole text and returns the elements of the array that it is.
func split(text []byte, l Limits) ([]json.RawMessage, error) {
	if len(text) > l.Unit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(text), l.Unit)
	}
	parts, err := rawjson.Elements(text, l.Depth, make([]json.RawMessage, 0, 3))
	if errors.Is(err, rawjson.ErrSyntax) {
		if _, err = rawjson.Value(text, l.Depth); err == nil {
			return nil, fmt.Errorf("%w: it is no array", ErrNotUnit)
		}
	}
	switch {
	case err == nil:
		return parts, nil
	case errors.Is(err, rawjson.ErrDepth):
		return nil, fmt.Errorf("%w: at most %d", ErrTooDeep, l.Depth)
	}
	return nil, fmt.Errorf("%w: %w", ErrNotJSON, err)
}

func beat(kind Kind, n json.RawMessage) (Unit, error) {
	if _, ok := rawjson.Number(n); !ok {
		return Unit{}, fmt.Errorf("%w: a %s has a number", ErrNotUnit, kind)
	}
	return Unit{Kind: kind, Value: n}, nil
}

// inner takes a part of a checked text apart, so that the only thing that can
// be wrong is its kind.
func inner(part json.RawMessage, atLeast int) ([]json.RawMessage, bool) {
	parts, err := rawjson.Elements(part, len(part), make([]json.RawMessage, 0, 3))
	return parts, err == nil && len(parts) >= atLeast
}

func (u *Unit) parseSession(part json.RawMessage) error {
	parts, ok := inner(part, 1)
	if !ok {
		return fmt.Errorf("%w: the second element is no [session, credentials]", ErrNotUnit)
	}
	if !rawjson.IsNull(parts[0]) {
		if u.Session, ok = rawjson.String(parts[0]); !ok {
			return fmt.Errorf("%w: the session is neither a string nor null", ErrNotUnit)
		}
	}
	if len(parts) > 1 && !rawjson.IsNull(parts[1]) {
		u.Credentials = parts[1]
	}
	return nil
}

func (u *Unit) parseCall(part json.RawMessage) error {
	parts, ok := inner(part, 2)
	if !ok {
		return fmt.Errorf("%w: the third element is no [target, call]", ErrNotUnit)
	}
	call, ok := inner(parts[1], 1)
	if !ok {
		return fmt.Errorf("%w: the call is no [method, arguments]", ErrNotUnit)
	}
	var isTarget, isMethod bool
	u.Target, isTarget = rawjson.String(parts[0])
	u.Method, isMethod = rawjson.String(call[0])
	if !isTarget || !isMethod {
		return fmt.Errorf("%w: the target or the method is no string", ErrNotUnit)
	}
	switch {
	case len(call) == 1 || rawjson.IsNull(call[1]):
	case call[1][0] == '[':
		u.Args, _ = inner(call[1], 0)
	default:
		u.Args = []json.RawMessage{call[1]}
	}
	return nil
}

// isAuthFailure knows the one unit that is an object.
func isAuthFailure(text []byte, l Limits) bool {
	if len(text) == 0 || text[0] != '{' || len(text) > l.Unit {
		return false
	}
	found := false
	err := rawjson.Members(text, l.Depth, func(key, _ []byte) { found = found || string(key) == "err" })
	return err == nil && found
}

func parseOutOfBand(part json.RawMessage) (Unit, error) {
	parts, ok := inner(part, 2)
	if !ok {
		return Unit{}, fmt.Errorf("%w: an out-of-band is no [session, channel, data]", ErrNotUnit)
	}
	session, isSession := rawjson.String(parts[0])
	channel, isChannel := rawjson.String(parts[1])
	if !isSession || !isChannel {
		return Unit{}, fmt.Errorf("%w: the session or the channel of an out-of-band is no string", ErrNotUnit)
	}
	u := Unit{Kind: OutOfBand, Session: session, Channel: channel}
	if len(parts) > 2 {
		u.Value = parts[2]
	}
	return u, nil
}

func parsePiece(parts []json.RawMessage) (Unit, error) {
	remaining, isCount := rawjson.Int(parts[1])
	if !isCount || remaining < 0 || len(parts) < 3 {
		return Unit{}, fmt.Errorf("%w: a piece is no [\"~\", remaining, text]", ErrNotUnit)
	}
	text, isText := rawjson.String(parts[2])
	if !isText {
		return Unit{}, fmt.Errorf("%w: the text of a piece is no string", ErrNotUnit)
	}
	return Unit{Kind: Piece, Remaining: remaining, Text: text}, nil
}

func parseAnswer(kind Kind, parts []json.RawMessage) (Unit, error) {
	id, ok := rawjson.String(parts[1])
	if !ok {
		return Unit{}, fmt.Errorf("%w: the id of a %s is no string", ErrNotUnit, kind)
	}
	u := Unit{Kind: kind, ID: id}
	if len(parts) > 2 {
		u.Value = parts[2]
	}
	if kind == Reject {
		u.Code, u.Message = reason(u.Value)
		u.Value = nil
	}
	return u, nil
}

// reason reads {"code":..., "message":...}; of anything else, the text is the
// code, since some rejection is better than none.
func reason(value json.RawMessage) (code, message string) {
	err := rawjson.Members(value, len(value), func(key, value []byte) {
		switch string(key) {
		case "code":
			code = plain(value)
		case "message":
			message = plain(value)
		}
	})
	if err != nil {
		return plain(value), ""
	}
	return code, message
}

func plain(value json.RawMessage) string {
	if s, ok := rawjson.String(value); ok || rawjson.IsNull(value) {
		return s
	}
	return string(value)
}
