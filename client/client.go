// Package client is how a Go program talks to the agent of its machine: the
// generated stubs of machineagent.v1 on a checked connection, with typed
// errors (design section 5); and how it is a good child of that agent
// (section 6).
//
//	c, err := client.Dial("") // MACHINEAGENT_ADDRESS, else the usual socket
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	answer, err := c.Processes.GetProcess(ctx, &machineagentv1.GetProcessRequest{Instance: "echo"})
//	if errors.Is(err, client.ErrNotFound) {
//		...
//	}
//
// A child is one call: RunChild serves the child's own socket, on which the
// agent asks it to end, and runs a function that opens ports with Child.Listen
// and says with Child.Up that they serve.
//
// It knows proto and nothing else of this project. Any program may import it;
// inside the project only cmd, examples and tests do.
package client

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// AddressVariable is the environment variable that names the agent for a
// program that was not told otherwise. The agent sets it for its children.
const AddressVariable = "MACHINEAGENT_ADDRESS"

// DefaultDeadline bounds a call whose context has no deadline.
const DefaultDeadline = 10 * time.Second

// readRetries lets calls that only read wait out a restart of the agent:
// three more tries within about a third of a second. Calls that change
// something are left to the caller, who knows whether they still matter.
const readRetries = `{"methodConfig": [{
	"name": [
		{"service": "machineagent.v1.ProcessService", "method": "GetProcess"},
		{"service": "machineagent.v1.ProcessService", "method": "ListProcesses"},
		{"service": "machineagent.v1.PortService", "method": "ListPorts"},
		{"service": "machineagent.v1.NeedService", "method": "ListNeeds"},
		{"service": "machineagent.v1.DirectoryService", "method": "ListServices"},
		{"service": "machineagent.v1.AgentService", "method": "ListModules"},
		{"service": "machineagent.v1.AgentService", "method": "GetStatus"}
	],
	"retryPolicy": {
		"maxAttempts": 4,
		"initialBackoff": "0.05s",
		"maxBackoff": "0.2s",
		"backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}
}]}`

// Client is a connection to one agent. Its fields are the generated clients;
// every error of theirs is an *Error. It connects at the first call, and again
// whenever the agent was gone. Safe for concurrent use.
type Client struct {
	Processes machineagentv1.ProcessServiceClient
	Ports     machineagentv1.PortServiceClient
	Needs     machineagentv1.NeedServiceClient
	Directory machineagentv1.DirectoryServiceClient
	Agent     machineagentv1.AgentServiceClient

	conn   *grpc.ClientConn
	dialer *dialer
}

// Option changes how Dial connects.
type Option func(*dialer)

// TrustUser makes the client also accept an agent that runs as the user of
// this uid. Root and the caller's own user are always accepted. Windows has no
// uids: there it changes nothing.
func TrustUser(uid int) Option {
	return func(d *dialer) { d.trusted = append(d.trusted, uid) }
}

// Patience is how long a server that takes the connection may say nothing before the
// calls on it fail; without it DefaultDeadline. A call whose own deadline is before
// that does not wait for it.
func Patience(d time.Duration) Option {
	return func(to *dialer) { to.patience = d }
}

// Dial makes a client of the agent at target: "unix:/path", a plain path, or
// on Windows the name of a pipe. An empty target is that of
// MACHINEAGENT_ADDRESS, and without that DefaultTarget. Dial does not wait for
// the agent: whether one is there, and whether it is the right one, the first
// call tells (ErrNoAgent, ErrStranger).
func Dial(target string, options ...Option) (*Client, error) {
	if target == "" {
		target = os.Getenv(AddressVariable)
	}
	if target == "" {
		target = DefaultTarget
	}
	address, err := parseTarget(target)
	if err != nil {
		return nil, err
	}
	d := &dialer{address: address, trusted: []int{0, os.Getuid()}, connected: make(chan struct{}, 1), patience: DefaultDeadline}
	for _, option := range options {
		option(d)
	}
	c := &Client{dialer: d}
	// The dialer alone knows the address, which may be a pipe, so grpc gets a
	// name that only serves as :authority.
	c.conn, err = grpc.NewClient("passthrough:///localhost",
		grpc.WithContextDialer(d.dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(readRetries),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: d.patience,
		}),
		grpc.WithUnaryInterceptor(c.call),
		grpc.WithStreamInterceptor(c.stream),
	)
	if err != nil {
		return nil, newError(ErrInvalid, codes.InvalidArgument, "cannot make a client of "+target+": "+err.Error(), "")
	}
	c.Processes = machineagentv1.NewProcessServiceClient(c.conn)
	c.Ports = machineagentv1.NewPortServiceClient(c.conn)
	c.Needs = machineagentv1.NewNeedServiceClient(c.conn)
	c.Directory = machineagentv1.NewDirectoryServiceClient(c.conn)
	c.Agent = machineagentv1.NewAgentServiceClient(c.conn)
	return c, nil
}

// Address is where the agent is looked for: the path of a socket, or the name
// of a pipe.
func (c *Client) Address() string { return c.dialer.address }

// Close ends the connection and every call on it. It may be called twice.
func (c *Client) Close() error {
	if err := c.conn.Close(); status.Code(err) != codes.Canceled { // Canceled: closed before
		return err
	}
	return nil
}

// call gives a unary call its deadline and its error the type.
func (c *Client) call(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultDeadline)
		defer cancel()
	}
	err := invoke(ctx, method, request, reply, conn, options...)
	if err == nil {
		return nil
	}
	return c.typed(ctx, err)
}

// stream gives the errors of a stream the type. A stream has no deadline but its
// caller's.
func (c *Client) stream(ctx context.Context, d *grpc.StreamDesc, conn *grpc.ClientConn, method string,
	open grpc.Streamer, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s, err := open(ctx, d, conn, method, options...)
	if err != nil {
		return nil, c.typed(ctx, err)
	}
	return typedStream{s, c}, nil
}

type typedStream struct {
	grpc.ClientStream
	client *Client
}

func (s typedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil || err == io.EOF {
		return err
	}
	return s.client.typed(s.Context(), err)
}

// typed makes an *Error of what grpc returned. An error that grpc made itself,
// because nobody could be reached, is told as the dialer saw it: grpc keeps
// only its text.
func (c *Client) typed(ctx context.Context, err error) error {
	// Not status.FromError, which prepends grpc's own remarks on retries.
	var carrier interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &carrier) {
		return newError(ErrInternal, codes.Internal, err.Error(), "")
	}
	s := carrier.GRPCStatus()
	if len(s.Details()) == 0 {
		switch code := s.Code(); {
		case code == codes.Unavailable || code == codes.DeadlineExceeded:
			if last := c.dialer.last.Load(); last != nil {
				return last
			}
			switch {
			case code == codes.Unavailable && c.dialer.mute():
				return newError(errMute, code, inTime(c.dialer.address), lateCure)
			case code == codes.Unavailable:
				return newError(ErrUnavailable, code,
					"the connection to the agent at "+c.dialer.address+" broke: "+s.Message(),
					"try again; every call may be repeated")
			}
		case code == codes.Canceled && ctx.Err() == nil:
			return newError(net.ErrClosed, codes.Canceled, "the client of "+c.dialer.address+" was closed", "")
		}
	}
	return fromStatus(s, c.dialer.address)
}
