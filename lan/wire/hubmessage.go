package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// This file is the text of the SignalR envelope (PROTOCOL section 1.3): the
// messages of Microsoft's JSON hub protocol, as the original uses them.

// recordSeparator ends every message.
const recordSeparator = 0x1E

// The messages that are no invocations.
const (
	clientHello = `{"protocol":"json","version":1}` + "\x1e"
	serverHello = `{}` + "\x1e"
	keepAlive   = `{"type":6}` + "\x1e"
	hubGoodbye  = `{"type":7}` + "\x1e"

	helloRefused = `{"error":"this server speaks the json protocol, version 1"}` + "\x1e"
)

// The types of messages.
const (
	typeInvocation = 1
	typeKeepAlive  = 6
	typeGoodbye    = 7
)

// checkHello tells whether a client begins as it must.
func checkHello(message []byte) error {
	var hello struct {
		Protocol string `json:"protocol"`
		Version  int    `json:"version"`
	}
	if err := json.Unmarshal(message, &hello); err != nil || hello.Protocol != "json" || hello.Version != 1 {
		return errors.New("no SignalR handshake of the json protocol, version 1")
	}
	return nil
}

// checkWelcome tells whether a server let a client in.
func checkWelcome(message []byte) error {
	var welcome struct {
		Error string `json:"error"`
	}
	switch err := json.Unmarshal(message, &welcome); {
	case err != nil:
		return fmt.Errorf("the SignalR handshake was answered with what is no JSON: %w", err)
	case welcome.Error != "":
		return fmt.Errorf("the SignalR handshake was refused: %.200q", welcome.Error)
	}
	return nil
}

// What the two sides invoke.
const (
	onServer = "allexjs"
	onClient = "_"
)

// appendToServer appends the message in which a client sends a unit.
func appendToServer(dst, unit []byte) []byte {
	dst = append(dst, `{"arguments":[`...)
	dst = append(dst, unit...)
	return append(dst, `],"target":"`+onServer+`","type":1}`+"\x1e"...)
}

// appendToClient appends the message in which a server sends a unit: as the text
// of an array of one.
func appendToClient(dst, unit []byte) []byte {
	dst = append(dst, `{"type":1,"target":"`+onClient+`","arguments":["[`...)
	dst = appendEscaped(dst, unit)
	return append(dst, `]"]}`+"\x1e"...)
}

// appendEscaped appends text as it stands inside of a JSON string. Other than
// rawjson.AppendString it is made for what is full of quotes.
func appendEscaped(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	from := 0
	for i, c := range text {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[from:i]...)
		from = i + 1
		if c < ' ' {
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, '\\', c)
		}
	}
	return append(dst, text[from:]...)
}

// cut calls yield with the unit, or, if its text in an array of one passes
// frameSize, with the pieces of that text, each a unit. The number in a piece is
// how many are to come. It stops when yield fails.
func cut(unit []byte, yield func(unit []byte) error) error {
	if len(unit)+2 <= frameSize {
		return yield(unit)
	}
	var pieces [][]byte
	text := append(append([]byte{'['}, unit...), ']')
	for len(text) > 0 {
		end := min(frameSize, len(text))
		for end < len(text) && end > frameSize-utf8.UTFMax && !utf8.RuneStart(text[end]) {
			end--
		}
		pieces = append(pieces, text[:end])
		text = text[end:]
	}
	var buf []byte
	for i, piece := range pieces {
		buf = strconv.AppendInt(append(buf[:0], `["~",`...), int64(len(pieces)-1-i), 10)
		buf = append(appendEscaped(append(buf, `,"`...), piece), `"]`...)
		if err := yield(buf); err != nil {
			return err
		}
	}
	return nil
}

// errNotMessage is for what the envelope can not make sense of. Like the
// original it ignores it.
var errNotMessage = errors.New("not understood in the SignalR envelope")

// errGoodbye ends a connection.
var errGoodbye = errors.New("the other side said that it closes the connection")

// unpacker finds the units in the frames of the envelope. It belongs to the
// reader of a connection.
type unpacker struct {
	limits Limits
	target string // what the other side invokes
	rest   []byte // of a message that is not complete
	pieces []byte // of a unit that is not complete, as they stood in their strings
}

// messages returns the messages that a frame completes.
func (p *unpacker) messages(frame []byte) ([][]byte, error) {
	looked := len(p.rest)
	if looked > 0 {
		if frame = append(p.rest, frame...); len(frame) > p.limits.Frame {
			return nil, fmt.Errorf("message: %w", ErrTooLarge)
		}
	}
	var messages [][]byte
	for {
		n := bytes.IndexByte(frame[looked:], recordSeparator)
		if n < 0 {
			p.rest = frame
			return messages, nil
		}
		end := looked + n
		messages = append(messages, frame[:end:end])
		frame, looked = frame[end+1:], 0
	}
}

// unit returns the unit that a message carries, or completes; nil if it does
// not. All errors but errNotMessage end the connection.
func (p *unpacker) unit(message []byte) ([]byte, error) {
	var kind, target, arguments []byte
	err := rawjson.Members(message, p.limits.Depth+2, func(key, value []byte) {
		switch string(key) {
		case "type":
			kind = value
		case "target":
			target = value
		case "arguments":
			arguments = value
		}
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotMessage, err)
	}
	switch n, _ := rawjson.Int(kind); n {
	case typeKeepAlive:
		return nil, nil
	case typeGoodbye:
		return nil, errGoodbye
	case typeInvocation:
	default:
		return nil, fmt.Errorf("%w: a message of type %.20q", errNotMessage, kind)
	}
	if name, _ := rawjson.String(target); name != p.target {
		return nil, fmt.Errorf("%w: an invocation of %.20q", errNotMessage, target)
	}
	unit, err := p.argument(arguments)
	if err != nil || !bytes.HasPrefix(unit, []byte(`["~",`)) {
		return unit, err
	}
	return p.piece(unit)
}

// argument returns the first of the arguments; a server's is packed once more.
func (p *unpacker) argument(arguments []byte) ([]byte, error) {
	list, ok := inner(arguments, 1)
	if !ok {
		return nil, fmt.Errorf("%w: an invocation without arguments", errNotMessage)
	}
	if p.target == onServer {
		return list[0], nil
	}
	text, _ := rawjson.String(list[0])
	return p.only([]byte(text))
}

// only returns the element of an array of one.
func (p *unpacker) only(array []byte) ([]byte, error) {
	list, err := rawjson.Elements(array, p.limits.Depth+1, make([]json.RawMessage, 0, 1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errNotMessage, err)
	case len(list) != 1:
		return nil, fmt.Errorf("%w: an array of %d instead of one", errNotMessage, len(list))
	}
	return list[0], nil
}

// piece adds a piece, and returns the unit if it was the last.
//
// The original cuts between the halves of a character beyond 16 bits, too, and
// each half is then an escape sequence of its own. So pieces are put together as
// they stood in their strings, and decoded as one.
func (p *unpacker) piece(unit []byte) ([]byte, error) {
	parts, ok := inner(unit, 3)
	if !ok || len(parts[2]) < 2 || parts[2][0] != '"' {
		return nil, fmt.Errorf("%w: a piece without text", errNotMessage)
	}
	remaining, ok := rawjson.Int(parts[1])
	if !ok {
		return nil, fmt.Errorf("%w: a piece without a number", errNotMessage)
	}
	const escaped = 2 // bytes of a string for one of JSON, at most
	text := parts[2][1 : len(parts[2])-1]
	if len(p.pieces)+len(text) > escaped*(p.limits.Unit+2) {
		return nil, fmt.Errorf("unit in pieces: %w", ErrTooLarge)
	}
	if len(p.pieces) == 0 {
		p.pieces = append(p.pieces, '"')
	}
	p.pieces = append(p.pieces, text...)
	if remaining > 0 {
		return nil, nil
	}
	whole, _ := rawjson.String(append(p.pieces, '"'))
	p.pieces = nil
	return p.only([]byte(whole))
}
