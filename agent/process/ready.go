package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	firstPause = 300 * time.Microsecond // a small child listens within a few milliseconds
	lastPause  = 50 * time.Millisecond
	oneTry     = time.Second // for an address that answers neither yes nor no
)

// AwaitPort returns nil when one of the TCP ports on host (an address) accepts
// a connection, which it closes at once. When ctx ends first, the error names
// the ports, the last refusal, and wraps the context's cause.
func AwaitPort(ctx context.Context, host string, ports []int) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	var last error
	for wait := firstPause; ; wait = min(wait*3/2, lastPause) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing accepts on %s port %s (%v): %w", host, list(ports), last, context.Cause(ctx))
		case <-pause.C:
		}
		for _, port := range ports {
			err := try(ctx, net.JoinHostPort(host, strconv.Itoa(port)))
			if err == nil {
				return nil
			}
			if last == nil || !timeout(err) { // a refusal says more than the end of our patience
				last = err
			}
		}
		pause.Reset(wait)
	}
}

func try(ctx context.Context, address string) error {
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

func timeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func list(ports []int) string {
	s := make([]string, len(ports))
	for i, port := range ports {
		s[i] = strconv.Itoa(port)
	}
	return strings.Join(s, ", ")
}
