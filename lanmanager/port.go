package lanmanager

import (
	"context"
	"net"
	"strconv"
	"time"
)

const connectTimeout = time.Second // for one port

// reachable tells whether one of the ports accepts a connection; they are tried
// one after the other, since usually the first does. Nothing is sent.
func reachable(ctx context.Context, host string, ports []int) bool {
	dialer := net.Dialer{Timeout: connectTimeout, KeepAlive: -1} // closed at once, so not kept alive
	for _, port := range ports {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			continue
		}
		// Where nobody listens, the system may give our end the very port that we
		// dial, and TCP then connects us to ourselves.
		itself := conn.LocalAddr().String() == conn.RemoteAddr().String()
		conn.Close()
		if !itself {
			return true
		}
	}
	return false
}
