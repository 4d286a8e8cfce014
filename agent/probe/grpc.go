package probe

import (
	"context"
	"net"
	"strconv"
	"time"
)

// GRPC asks whether the service (empty: the server as a whole) says on a port of
// host (an address) that it is serving, by the right hands; serving asks it, in the
// terms of grpc.health.v1, of which this package knows nothing.
func GRPC(host string, port int, service string, serving func(ctx context.Context, address, service string) error, whose Owner) Question {
	address := net.JoinHostPort(host, strconv.Itoa(port))
	return Question{"grpc.health.v1 at " + address + " does not say SERVING", func(ctx context.Context) error {
		if err := serving(ctx, address, service); err != nil {
			// The other side keeps an eye on the same time, and its word that it is
			// over may be here before ctx ends.
			if end, limited := ctx.Deadline(); limited && !time.Now().Before(end) {
				return context.DeadlineExceeded
			}
			return err
		}
		return whose(port)
	}}
}
