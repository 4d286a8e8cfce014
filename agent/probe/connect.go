package probe

import (
	"context"
	"io"
	"net/netip"
	"time"
)

// connection is a connection to a port.
type connection interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// with has talk use a connection to a port of host (an address), which ends when ctx
// does.
func with(ctx context.Context, host string, port int, talk func(connection) error) error {
	at, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	c, err := dial(ctx, netip.AddrPortFrom(at, uint16(port)))
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return talk(c)
}

// connect tells whether somebody accepts at a port of host (an address).
func connect(ctx context.Context, host string, port int) error {
	at, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	return accepts(ctx, netip.AddrPortFrom(at, uint16(port)))
}
