package wire

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// fakeConn is a Conn without an envelope, for tests that need many of them.
type fakeConn struct {
	replies chan string
	gone    chan struct{}
	close   sync.Once
}

func newFakeConn() *fakeConn {
	return &fakeConn{replies: make(chan string, 100), gone: make(chan struct{})}
}

func (c *fakeConn) Read() ([][]byte, error) {
	select {
	case text, ok := <-c.replies:
		if !ok {
			return nil, io.EOF
		}
		return [][]byte{[]byte(text)}, nil
	case <-c.gone:
		return nil, os.ErrClosed
	}
}

func (c *fakeConn) Write([][]byte) error {
	select {
	case <-c.gone:
		return os.ErrClosed
	default:
		return nil
	}
}

func (c *fakeConn) Close() error                    { c.close.Do(func() { close(c.gone) }); return nil }
func (c *fakeConn) SetReadDeadline(time.Time) error { return nil }
func (c *fakeConn) RemoteAddr() net.Addr            { return nil }
func (c *fakeConn) LocalAddr() net.Addr             { return nil }
