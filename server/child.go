package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// speaksWithin is how long whoever listens on the socket of a child may take to show
// that it speaks HTTP/2. Once it has, only the caller's patience counts.
const speaksWithin = time.Second

// Children calls ChildService of children; it is an agent.Children.
type Children struct{}

// Stop implements agent.Children.
func (Children) Stop(ctx context.Context, socket string, ours func(pid int) bool, reason string, timeout time.Duration) error {
	conn, err := dialChild(ctx, socket, ours)
	if err != nil {
		return err
	}
	defer conn.Close()
	var asked peer.Peer
	_, err = pb.NewChildServiceClient(conn).Stop(ctx, &pb.StopRequest{Reason: reason, Timeout: durationpb.New(timeout)}, grpc.Peer(&asked))
	if asked.Addr != nil && status.Code(err) == codes.Unavailable {
		return nil // it was asked, and has closed the connection: it ends
	}
	return err
}

// dialChild connects to a socket and sees to it, before a byte is sent, that one
// of ours listens there: anybody can make a file of that name.
func dialChild(ctx context.Context, socket string, ours func(pid int) bool) (*grpc.ClientConn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	if err := listens(raw, ours); err != nil {
		raw.Close()
		return nil, fmt.Errorf("%s: %w", socket, err)
	}
	once := make(chan net.Conn, 1)
	once <- raw
	c, err := grpc.NewClient("passthrough:///localhost",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: speaksWithin}),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the connection to the child broke")
			}
		}))
	if err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// listens is an error unless the process at the other end, the one that called
// listen, is one of ours.
func listens(c net.Conn, ours func(pid int) bool) error {
	who, err := identify(c)
	if err != nil {
		return fmt.Errorf("who listens there is not known: %w", err)
	}
	defer who.pin.release()
	// In this order: as long as it lives, the pid is its own.
	if who.pid <= 0 || !ours(who.pid) || who.pin.gone() {
		return fmt.Errorf("%s listens there, which is no process of the instance", who)
	}
	return nil
}

// Serving implements agent.Children. It makes a connection for each question: a
// thousand that are kept would cost more than a thousand that are made now and
// then.
func (Children) Serving(ctx context.Context, address, service string) error {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithReadBufferSize(0), grpc.WithWriteBufferSize(0))
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	switch {
	case err != nil:
		return errors.New(status.Convert(err).Message())
	case answer.GetStatus() != healthpb.HealthCheckResponse_SERVING:
		return fmt.Errorf("it says %s", answer.GetStatus())
	}
	return nil
}
