//go:build !linux

package probe

import (
	"context"
	"net"
	"net/netip"
)

// dial connects to a port.
func dial(ctx context.Context, to netip.AddrPort) (connection, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", to.String())
}

// accepts tells whether somebody accepts at a port.
func accepts(ctx context.Context, to netip.AddrPort) error {
	c, err := dial(ctx, to)
	if err != nil {
		return err
	}
	return c.Close()
}
