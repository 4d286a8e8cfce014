//go:build !linux

package probe

import (
	"context"
	"net"
	"net/netip"
)

// dial connects to a port and lets go at once.
func dial(ctx context.Context, to netip.AddrPort) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	return conn.Close()
}
