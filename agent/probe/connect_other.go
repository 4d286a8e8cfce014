//go:build !linux

package probe

import (
	"context"
	"net"
	"net/netip"
)

// dial connects to a port and lets go at once.
func dial(ctx context.Context, to netip.AddrPort) error {
	d := net.Dialer{Timeout: oneTry}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	return conn.Close()
}
