package agent

import "context"

// turn waits until nobody else looks at what the system tells of processes and
// sockets for a caller, and keeps the others waiting until done is called: who asks
// often, or with many at once, takes no more of the machine than one who asks. The
// error is that of ctx.
func (a *Agent) turn(ctx context.Context) (done func(), err error) {
	select {
	case a.looking <- struct{}{}:
		return func() { <-a.looking }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
