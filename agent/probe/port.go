package probe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Port waits until one of the TCP ports on host (an address) accepts a
// connection, which it closes at once.
func Port(ctx context.Context, host string, ports []int) error {
	what := fmt.Sprintf("nothing accepts on %s port %s", host, list(ports))
	return until(ctx, what, func() error {
		var refusal error
		for _, port := range ports {
			err := connect(ctx, net.JoinHostPort(host, strconv.Itoa(port)))
			if err == nil {
				return nil
			}
			if refusal == nil || !timeout(err) {
				refusal = err
			}
		}
		return refusal
	})
}

func connect(ctx context.Context, address string) error {
	if to, err := netip.ParseAddrPort(address); err == nil {
		if settled, err := ask(to); settled {
			return err
		}
	}
	d := net.Dialer{Timeout: oneTry}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func list(ports []int) string {
	s := make([]string, len(ports))
	for i, port := range ports {
		s[i] = strconv.Itoa(port)
	}
	return strings.Join(s, ", ")
}
