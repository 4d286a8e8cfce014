package wire

import (
	"encoding/json"
	"strconv"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// Kind is what a unit says. Its zero value is no kind.
type Kind uint8

// A client sends Introduce, Call, Ping and Pong; a server sends all but
// Introduce and Call.
const (
	Introduce   Kind = iota + 1 // create a session from credentials, or attach to a reserved one
	Call                        // call a method of a session
	Ping                        // are you there
	Pong                        // yes, with the number of the Ping
	Resolve                     // a call ended well
	Reject                      // a call failed
	Notify                      // progress of a call, or an item of a query
	OutOfBand                   // something about a session that nobody asked for
	Forget                      // the unit could not be attributed to a session
	Piece                       // a piece of a long unit, in the SignalR envelope only
	AuthFailure                 // an introduction was refused; it does not say which
)

func (k Kind) String() string {
	names := [...]string{"none", "introduce", "call", "ping", "pong", "resolve", "reject",
		"notify", "out-of-band", "forget", "piece", "auth-failure"}
	if int(k) < len(names) {
		return names[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// The targets of a Call (PROTOCOL section 2). A client of this package sends
// no others: a call to a subservice by name ends the real LAN manager.
const (
	Business = "." // a method of the user: what the session is for
	Protocol = "!" // a method of the session: subConnect, query, bid, die ...
)

// The channels of an OutOfBand unit (PROTOCOL section 5).
const (
	StateChannel = "s"
	EndChannel   = "-" // the server ended the session
)

// Unit is one message (PROTOCOL section 2). Which fields count depends on its
// Kind. Raw fields of a parsed unit are slices of the text that it was parsed
// from.
type Unit struct {
	Kind        Kind
	ID          string            // Introduce, Call, Resolve, Reject, Notify
	Session     string            // Introduce, Call, OutOfBand; "" is null on the wire
	Credentials json.RawMessage   // Introduce, Call; nil is null
	Target      string            // Call
	Method      string            // Call
	Args        []json.RawMessage // Call; nil is null, which means none
	// Value is the result of a Resolve, the item of a Notify, the data of an
	// OutOfBand, the number of a Ping or Pong (untouched, the sender computes
	// with it), and the whole unit that a Forget gives back. Nil is null.
	Value     json.RawMessage
	Channel   string // OutOfBand
	Code      string // Reject
	Message   string // Reject
	Remaining int    // Piece: how many are to come
	Text      string // Piece
}

// AppendJSON appends the unit's text to dst. A unit without a Kind appends
// nothing.
func (u Unit) AppendJSON(dst []byte) []byte {
	switch u.Kind {
	case Introduce, Call:
		return u.appendRequest(dst)
	case Ping:
		return append(appendRaw(append(dst, `["?",`...), u.Value), ']')
	case Pong:
		return append(appendRaw(append(dst, `["!",`...), u.Value), ']')
	case Resolve:
		return u.appendAnswer(dst, 'r')
	case Notify:
		return u.appendAnswer(dst, 'n')
	case Reject:
		dst = rawjson.AppendString(append(dst, `["e",`...), u.ID)
		dst = rawjson.AppendString(append(dst, `,{"code":`...), u.Code)
		dst = rawjson.AppendString(append(dst, `,"message":`...), u.Message)
		return append(dst, `}]`...)
	case OutOfBand:
		dst = rawjson.AppendString(append(dst, `["oob",[`...), u.Session)
		dst = rawjson.AppendString(append(dst, ','), u.Channel)
		return append(appendRaw(append(dst, ','), u.Value), `]]`...)
	case Forget:
		return append(appendRaw(append(dst, `["f",`...), u.Value), ']')
	case Piece:
		dst = strconv.AppendInt(append(dst, `["~",`...), int64(u.Remaining), 10)
		return append(rawjson.AppendString(append(dst, ','), u.Text), ']')
	case AuthFailure:
		return append(dst, `{"err":{}}`...)
	}
	return dst
}

func (u Unit) appendRequest(dst []byte) []byte {
	dst = rawjson.AppendString(append(dst, '['), u.ID)
	dst = append(dst, `,[`...)
	if u.Session == "" {
		dst = append(dst, `null`...)
	} else {
		dst = rawjson.AppendString(dst, u.Session)
	}
	dst = append(appendRaw(append(dst, ','), u.Credentials), ']')
	if u.Kind == Introduce {
		return append(dst, ']')
	}
	dst = rawjson.AppendString(append(dst, `,[`...), u.Target)
	dst = rawjson.AppendString(append(dst, `,[`...), u.Method)
	if u.Args == nil {
		return append(dst, `,null]]]`...)
	}
	dst = append(dst, `,[`...)
	for i, arg := range u.Args {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendRaw(dst, arg)
	}
	return append(dst, `]]]]`...)
}

func (u Unit) appendAnswer(dst []byte, kind byte) []byte {
	dst = append(dst, '[', '"', kind, '"', ',')
	dst = rawjson.AppendString(dst, u.ID)
	return append(appendRaw(append(dst, ','), u.Value), ']')
}

func appendRaw(dst []byte, value json.RawMessage) []byte {
	if len(value) == 0 {
		return append(dst, `null`...)
	}
	return append(dst, value...)
}
