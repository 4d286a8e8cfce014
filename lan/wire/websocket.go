package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

const (
	writeTimeout = 10 * time.Second
	closeTimeout = 100 * time.Millisecond
)

// Upgrade takes over a request and answers it as a WebSocket server (PROTOCOL
// section 1.1). When it fails it has answered with an HTTP error. Who is asking
// is for the caller to check before.
//
// The protocol has no authentication to speak of, and browsers connect from any
// page to any address. They, and only they, send an Origin; such requests are
// refused.
func Upgrade(w http.ResponseWriter, r *http.Request, l Limits) (Conn, error) {
	f, err := upgrade(w, r, l)
	if err != nil {
		return nil, err
	}
	return &socket{frames: f}, nil
}

func upgrade(w http.ResponseWriter, r *http.Request, l Limits) (*frames, error) {
	if !websocket.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this port speaks WebSocket only", http.StatusUpgradeRequired)
		return nil, fmt.Errorf("%s asked for no WebSocket", r.RemoteAddr)
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: handshakeTimeout,
		CheckOrigin:      func(r *http.Request) bool { return !fromBrowser(r) },
	}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return nil, fmt.Errorf("WebSocket of %s: %w", r.RemoteAddr, err)
	}
	return newFrames(ws, l), nil
}

func fromBrowser(r *http.Request) bool { return len(r.Header["Origin"]) > 0 }

// frames is a WebSocket as every envelope uses it: text frames, no compression;
// binary frames are ignored. One goroutine reads, one writes.
type frames struct {
	ws     *websocket.Conn
	in     []byte // the reader's
	closed sync.Once
}

func newFrames(ws *websocket.Conn, l Limits) *frames {
	ws.SetReadLimit(int64(l.orDefault().Frame))
	return &frames{ws: ws}
}

// read returns the next frame. It stays valid.
func (f *frames) read() ([]byte, error) {
	for {
		kind, r, err := f.ws.NextReader()
		var frame []byte
		if err == nil {
			frame, err = f.readAll(r)
		}
		switch {
		case errors.Is(err, websocket.ErrReadLimit):
			return nil, fmt.Errorf("frame: %w", ErrTooLarge)
		case err != nil:
			return nil, err
		case kind != websocket.TextMessage:
			continue
		case !utf8.Valid(frame):
			return nil, errors.New("text frame is not UTF-8")
		}
		return frame, nil
	}
}

// readAll reads a frame into memory that has its length, which is not known
// before. Most frames are short, and read here first.
func (f *frames) readAll(r io.Reader) ([]byte, error) {
	if f.in == nil {
		f.in = make([]byte, 4096)
	}
	for n := 0; n < len(f.in); {
		more, err := r.Read(f.in[n:])
		n += more
		switch {
		case errors.Is(err, io.EOF):
			return slices.Clone(f.in[:n]), nil
		case err != nil:
			return nil, err
		}
	}
	return io.ReadAll(io.MultiReader(bytes.NewReader(f.in), r))
}

func (f *frames) write(frame []byte, within time.Duration) error {
	if err := f.ws.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	return f.ws.WriteMessage(websocket.TextMessage, frame)
}

func (f *frames) Close() error {
	var err error
	f.closed.Do(func() {
		// A courtesy; the close codes carry no meaning in this protocol.
		goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		_ = f.ws.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(closeTimeout))
		err = f.ws.Close()
	})
	return err
}

// cut ends the connection without a word.
func (f *frames) cut() error {
	var err error
	f.closed.Do(func() { err = f.ws.Close() })
	return err
}

func (f *frames) SetReadDeadline(t time.Time) error { return f.ws.SetReadDeadline(t) }
func (f *frames) RemoteAddr() net.Addr              { return f.ws.RemoteAddr() }
func (f *frames) LocalAddr() net.Addr               { return f.ws.LocalAddr() }

// socket is a Conn in the WebSocket envelope: NUL between units.
type socket struct {
	*frames
	out []byte // the writer's
}

func (s *socket) Read() ([][]byte, error) {
	for {
		frame, err := s.read()
		if err != nil {
			return nil, err
		}
		if units := unjoin(frame); len(units) > 0 {
			return units, nil
		}
	}
}

func (s *socket) Write(units [][]byte) error {
	var err error
	s.out, err = join(s.out, units, func(frame []byte) error { return s.frames.write(frame, writeTimeout) })
	s.out = kept(s.out)
	return err
}
