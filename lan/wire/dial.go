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

	"github.com/gorilla/websocket"
)

const (
	handshakeTimeout = 10 * time.Second
	handshakeBytes   = 64 << 10 // what a server may send before the WebSocket is open
)

// DialOptions of Dial and DialSignalR; the zero value is good.
type DialOptions struct {
	LocalIP net.IP      // the address to connect from; nil: the system chooses
	TLS     *tls.Config // for wss and https
	Token   string      // sent as Authorization: Bearer; "" none
	Limits  Limits
}

func (o DialOptions) header() http.Header {
	header := make(http.Header)
	if o.Token != "" {
		header.Set("Authorization", "Bearer "+o.Token)
	}
	return header
}

// connectFunc opens the connection under everything else.
type connectFunc func(ctx context.Context, network, address string) (net.Conn, error)

func (o DialOptions) connect() connectFunc {
	dialer := &net.Dialer{}
	if o.LocalIP != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: o.LocalIP}
	}
	return dialer.DialContext
}

// Dial opens a WebSocket (PROTOCOL section 1.1) to a URL such as
// ws://127.0.0.1:23552/. It gives up when ctx ends, or after 10 s.
func Dial(ctx context.Context, url string, o DialOptions) (Conn, error) {
	f, err := dial(ctx, url, o, o.connect())
	if err != nil {
		return nil, err
	}
	return &socket{frames: f}, nil
}

func dial(ctx context.Context, url string, o DialOptions, connect connectFunc) (*frames, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	var wary *waryConn
	dialer := websocket.Dialer{
		TLSClientConfig: o.TLS,
		WriteBufferSize: frameSize,    // so that a frame of ours is one on the wire
		WriteBufferPool: &sync.Pool{}, // and holds no memory while there is none to send
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
	ws, response, err := dialer.DialContext(ctx, url, o.header())
	if wary != nil && !wary.release() && err == nil {
		err = ctx.Err()
		ws.Close()
	}
	switch {
	case errors.Is(err, websocket.ErrBadHandshake):
		return nil, handshakeError(url, response)
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("connecting to %s: %w", url, context.Cause(ctx))
	case isTimeout(err): // the deadline of ctx has been put on the connection, too
		return nil, fmt.Errorf("connecting to %s: %w: %w", url, context.DeadlineExceeded, err)
	case err != nil:
		return nil, fmt.Errorf("connecting to %s: %w", url, err)
	}
	wary.left = -1
	return newFrames(ws, o.Limits), nil
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
