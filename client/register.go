package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
	"google.golang.org/grpc/connectivity"
)

// Up says that the child serves: to the agent, with the ports that it has
// opened; to NOTIFY_SOCKET, if there is one; and to whoever asks its health.
// status is a text for people. Up returns when the agent has taken note; one that
// is not there is waited for, until ctx ends. From then on the child stays
// registered: with the next agent, too. Up may be called again, with another
// status or other ports.
//
// In a process without an instance there is nobody to tell.
func (c *Child) Up(ctx context.Context, status string) error {
	c.mu.Lock()
	c.status, c.up = status, true
	c.mu.Unlock()
	c.serving(true)
	if err := notifyReady(); err != nil {
		c.log.Warn("the readiness could not be notified", "error", err)
	}
	if c.Spawn.Instance == "" {
		return nil
	}
	return c.register(ctx)
}

// Down says that the child must not be served any more, and why: the service
// leaves the LAN's table, and the agent stops this process and has another one
// take its place. An agent that is not there is waited for, until ctx ends. A
// process without an instance stops itself.
func (c *Child) Down(ctx context.Context, reason string) error {
	c.mu.Lock()
	c.up = false
	c.mu.Unlock()
	c.serving(false)
	if c.Spawn.Instance == "" {
		c.stop(&Stopped{Reason: reason})
		return nil
	}
	c.registering.Lock()
	defer c.registering.Unlock()
	return c.persist(ctx, func() error {
		_, err := c.Client.Processes.ReportDown(ctx, &machineagentv1.ReportDownRequest{
			Instance: c.Spawn.Instance, Reason: reason,
		})
		return err
	})
}

// register tells the agent how the child stands, unless it is down.
func (c *Child) register(ctx context.Context) error {
	c.registering.Lock()
	defer c.registering.Unlock()
	return c.persist(ctx, func() error {
		c.mu.Lock()
		up, opened, status := c.up, c.opened, c.status
		c.mu.Unlock()
		if !up {
			return nil
		}
		answer, err := c.Client.Processes.RegisterProcess(ctx, &machineagentv1.RegisterProcessRequest{
			Instance:   c.Spawn.Instance,
			Module:     c.config.Module,
			Ports:      &machineagentv1.Ports{Tcp: int32(opened.TCP), Http: int32(opened.HTTP), Ws: int32(opened.WS)},
			StatusText: status,
		})
		if pid := answer.GetProcess().GetPid(); err == nil && int(pid) != os.Getpid() {
			c.log.Warn("the agent knows another process as that of the instance, and asks that one to end; "+
				"have the module start this program itself, or by exec", "instance", c.Spawn.Instance, "agent's", pid, "ours", os.Getpid())
		}
		return err
	})
}

// keepRegistered registers over every new connection, which may be one to a new
// agent.
func (c *Child) keepRegistered() {
	for {
		select {
		case <-c.Client.dialer.connected:
			if err := c.register(c.ctx); err != nil && c.ctx.Err() == nil {
				c.log.Warn("the agent does not take the registration", "instance", c.Spawn.Instance, "error", err)
			}
		case <-c.ctx.Done():
			return
		}
	}
}

// keepConnected connects at once, and again when the connection is lost: grpc
// would wait for the next call.
func (c *Child) keepConnected() {
	conn := c.Client.conn
	for {
		state := conn.GetState()
		if state == connectivity.Idle {
			conn.Connect()
		}
		if !conn.WaitForStateChange(c.ctx, state) {
			return
		}
	}
}

// persist calls until there is an agent to answer, or ctx ends.
func (c *Child) persist(ctx context.Context, call func() error) error {
	for pause := firstPause; ; pause = min(2*pause, time.Second) {
		err := call()
		if !errors.Is(err, ErrUnavailable) && !(errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil) {
			return err
		}
		if pause == firstPause {
			c.log.Warn("waiting for the agent", "instance", c.Spawn.Instance, "error", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// firstPause is that after the first call that found no agent. Later ones are
// longer, up to a second.
const firstPause = 50 * time.Millisecond

// notifyReady tells whoever started us over NOTIFY_SOCKET, if it wants to know.
func notifyReady() error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("READY=1"))
	return err
}
