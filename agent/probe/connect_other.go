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
