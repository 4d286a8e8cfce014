package client

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
)

// dialer opens connections to one address and to nobody but the agent there.
type dialer struct {
	address string
	trusted []int // uids
	// last is why the last attempt failed; nil after a success.
	last atomic.Pointer[Error]
	// connected gets a value when there is a new connection. Nobody is waited
	// for, so it has room for one.
	connected chan struct{}
	patience  time.Duration           // with a server that takes a connection and says nothing
	attempt   atomic.Pointer[attempt] // the last one
}

// attempt is one to connect. Its context ends when grpc has heard the server or gives
// it up.
type attempt struct {
	context.Context
	mute bool // whether the one before ended because the server said nothing
}

// mute tells whether the last attempt that has ended did so because the server said
// nothing: the next one may have begun by now. It can not be seen by the connection: of
// one that it does not know grpc keeps a buffer.
func (d *dialer) mute() bool {
	last := d.attempt.Load()
	if last == nil || last.Err() == nil {
		return last != nil && last.mute
	}
	return errors.Is(last.Err(), context.DeadlineExceeded)
}

// dial connects for grpc, which has no address of its own to offer.
func (d *dialer) dial(ctx context.Context, _ string) (net.Conn, error) {
	d.attempt.Store(&attempt{ctx, d.mute()})
	conn, err := d.open(ctx)
	d.last.Store(err)
	if err != nil {
		// Only the text: of an error with a status grpc would take the code,
		// and typed could not tell it from an answer of the agent.
		return nil, errors.New(err.Message)
	}
	select {
	case d.connected <- struct{}{}:
	default:
	}
	return conn, nil
}

// open connects and looks at the socket's other end before anything is said:
// anybody may lay a socket into /tmp while no agent runs.
func (d *dialer) open(ctx context.Context) (net.Conn, *Error) {
	conn, err := connect(ctx, d.address)
	if err != nil {
		return nil, dialError(d.address, err)
	}
	uid, known, err := peerUID(conn)
	switch {
	case err != nil:
		conn.Close()
		return nil, newError(ErrUnavailable, codes.Unavailable,
			"cannot tell who serves "+d.address+": "+err.Error(), "")
	case known && !slices.Contains(d.trusted, uid):
		conn.Close()
		return nil, newError(ErrStranger, codes.PermissionDenied,
			d.address+" is served by uid "+strconv.Itoa(uid)+", which is neither root nor you",
			"find out whose it is; if your agent runs as that user, say so (client.TrustUser)")
	}
	return conn, nil
}

// noAgent is the error of an address at which nobody listens.
func noAgent(address, why string) *Error {
	return newError(ErrNoAgent, codes.Unavailable, "there is no agent at "+address+": "+why,
		"start one with `agentd`, or name the address of yours in "+AddressVariable)
}
