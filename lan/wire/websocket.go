package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

const (
	handshakeTimeout = 10 * time.Second
	handshakeBytes   = 64 << 10 // what a server may send before the WebSocket is open
	writeTimeout     = 10 * time.Second
	closeTimeout     = 100 * time.Millisecond
)

// DialOptions of Dial; the zero value is good.
type DialOptions struct {
	LocalIP net.IP      // the address to connect from; nil: the system chooses
	TLS     *tls.Config // for wss
	Limits  Limits
}

// Dial opens a WebSocket (PROTOCOL section 1.1) to a URL such as
// ws://127.0.0.1:23552/. It gives up when ctx ends, or after 10 s.
func Dial(ctx context.Context, url string, o DialOptions) (Conn, error) {
	dialer := &net.Dialer{}
	if o.LocalIP != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: o.LocalIP}
	}
	return dial(ctx, url, o, dialer.DialContext)
}

func dial(ctx context.Context, url string, o DialOptions,
	connect func(ctx context.Context, network, address string) (net.Conn, error),
) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	var wary *waryConn
	dialer := websocket.Dialer{
		TLSClientConfig: o.TLS,
		WriteBufferSize: frameSize, // so that a frame of ours is one on the wire
		NetDialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := connect(ctx, network, address)
			if err != nil {
				return nil, err
			}
			wary = &waryConn{Conn: conn, left: handshakeBytes}
			// The dialer knows deadlines but not cancellation.
			wary.release = context.AfterFunc(ctx, func() { conn.Close() })
			return wary, nil
		},
	}
	ws, response, err := dialer.DialContext(ctx, url, nil)
	if wary != nil && !wary.release() && err == nil {
		err = ctx.Err()
		ws.Close()
	}
	switch {
	case errors.Is(err, websocket.ErrBadHandshake):
		return nil, fmt.Errorf("%s does not speak WebSocket: it answered %q", url, response.Status)
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("connecting to %s: %w", url, context.Cause(ctx))
	case isTimeout(err): // the deadline of ctx has been put on the connection, too
		return nil, fmt.Errorf("connecting to %s: %w: %w", url, context.DeadlineExceeded, err)
	case err != nil:
		return nil, fmt.Errorf("connecting to %s: %w", url, err)
	}
	wary.left = -1
	return newSocket(ws, o.Limits), nil
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// waryConn bounds what a server can make us read before the WebSocket is open.
type waryConn struct {
	net.Conn
	left    int // bytes; below 0: no bound
	release func() bool
}

func (c *waryConn) Read(b []byte) (int, error) {
	if c.left < 0 {
		return c.Conn.Read(b)
	}
	if c.left == 0 {
		return 0, fmt.Errorf("%w: more than %d bytes of handshake", ErrTooLarge, handshakeBytes)
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// Upgrade takes over a request and answers it as a WebSocket server. When it
// fails it has answered with an HTTP error.
//
// The protocol has no authentication to speak of, and browsers connect from any
// page to any address. They, and only they, send an Origin; such requests are
// refused.
func Upgrade(w http.ResponseWriter, r *http.Request, l Limits) (Conn, error) {
	if !websocket.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this port speaks WebSocket only", http.StatusUpgradeRequired)
		return nil, fmt.Errorf("%s asked for no WebSocket", r.RemoteAddr)
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: handshakeTimeout,
		WriteBufferSize:  frameSize,
		CheckOrigin:      func(r *http.Request) bool { return r.Header.Get("Origin") == "" },
	}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return nil, fmt.Errorf("WebSocket of %s: %w", r.RemoteAddr, err)
	}
	return newSocket(ws, l), nil
}

// socket is a Conn in the WebSocket envelope: text frames, NUL between units,
// no compression; binary frames are ignored.
type socket struct {
	ws     *websocket.Conn
	out    []byte // the writer's
	closed sync.Once
}

func newSocket(ws *websocket.Conn, l Limits) *socket {
	ws.SetReadLimit(int64(l.orDefault().Frame))
	return &socket{ws: ws}
}

func (s *socket) Read() ([][]byte, error) {
	for {
		kind, frame, err := s.ws.ReadMessage()
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
		if units := unjoin(frame); len(units) > 0 {
			return units, nil
		}
	}
}

func (s *socket) Write(units [][]byte) error {
	var err error
	s.out, err = join(s.out, units, func(frame []byte) error {
		if err := s.ws.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		return s.ws.WriteMessage(websocket.TextMessage, frame)
	})
	if cap(s.out) > 4*frameSize { // one long unit is no reason to keep its room
		s.out = nil
	}
	return err
}

func (s *socket) Close() error {
	var err error
	s.closed.Do(func() {
		// A courtesy; the close codes carry no meaning in this protocol.
		goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		_ = s.ws.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(closeTimeout))
		err = s.ws.Close()
	})
	return err
}

func (s *socket) SetReadDeadline(t time.Time) error { return s.ws.SetReadDeadline(t) }
func (s *socket) RemoteAddr() net.Addr              { return s.ws.RemoteAddr() }
func (s *socket) LocalAddr() net.Addr               { return s.ws.LocalAddr() }
