package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/health"
)

// ChildConfig says what is unusual about a child. A child of an agent needs none
// of it.
type ChildConfig struct {
	// Module is the module under which a process registers that no agent
	// started. Root and the agent's user need not name one.
	Module string
	// Logger is told what goes wrong without ending the child. nil is
	// slog.Default.
	Logger *slog.Logger
	// Options are those of Dial.
	Options []Option
}

// Child is this process as a child of the agent of its machine. Safe for
// concurrent use.
type Child struct {
	// Spawn is what the process was started for.
	Spawn Spawn
	// Client talks to the agent, at MACHINEAGENT_ADDRESS or where an agent
	// usually listens. RunChild closes it.
	Client *Client

	config ChildConfig
	log    *slog.Logger
	ctx    context.Context // that of serve
	stop   context.CancelCauseFunc
	health *health.Server
	tasks  sync.WaitGroup
	// registering is held during a call that registers or reports down, so
	// that the agent hears the last word last.
	registering sync.Mutex

	mu     sync.Mutex
	opened Ports
	status string
	up     bool // it has said so, and has not said that it is down
}

// Stopped is why the context of a child has ended, if that was asked of it. It
// is the context's cause.
type Stopped struct {
	Reason string // the agent's, or the name of a signal
	// Deadline is when the process is killed; zero if nobody has said.
	Deadline time.Time
}

// Error is the reason.
func (s *Stopped) Error() string { return "the child was asked to end: " + s.Reason }

// RunChild runs serve as a child of the agent of this machine and returns when
// serve has returned, with its error. An error that only says that the context
// has ended is none.
//
// serve opens its ports (Child.Listen), says that it is up (Child.Up), and goes
// on until its context ends: by ChildService.Stop, by SIGTERM or Ctrl-C, or with
// ctx. context.Cause tells which. Then it finishes what it has begun, for which
// Grace tells the time, and returns.
//
// Meanwhile RunChild serves ChildService and grpc.health.v1 on
// /tmp/allexprocess.<pid>, for root and our own user only. If it can not, the
// child runs all the same and is stopped by its signal. On Windows it does not.
//
// In a developer's shell, with no agent and none of an agent's variables, all of
// it works and nobody is told: Listen takes a port that is free, or that of
// HTTP_PORT. With MACHINEAGENT_INSTANCE set by hand it registers with the agent
// of the machine under that name, as an outside process.
func RunChild(ctx context.Context, config ChildConfig, serve func(context.Context, *Child) error) error {
	spawn, err := ReadSpawn()
	if err != nil {
		return err
	}
	client, err := Dial("", config.Options...)
	if err != nil {
		return err
	}
	defer client.Close()
	c := &Child{Spawn: spawn, Client: client, config: config, log: config.Logger, health: newHealth()}
	if c.log == nil {
		c.log = slog.Default()
	}
	c.ctx, c.stop = context.WithCancelCause(ctx)
	defer c.tasks.Wait()
	defer c.stop(nil)

	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(told)
	c.tasks.Go(func() {
		select {
		case s := <-told:
			c.stop(&Stopped{Reason: s.String()})
		case <-c.ctx.Done():
		}
		c.health.Shutdown()
	})
	end, err := c.serveSocket()
	switch {
	case err == nil:
		defer end()
	case !errors.Is(err, errors.ErrUnsupported):
		c.log.Warn("the child can be stopped by signals only", "error", err)
	}
	if spawn.Instance != "" {
		c.tasks.Go(c.keepConnected)
		c.tasks.Go(c.keepRegistered)
	}
	err = serve(c.ctx, c)
	if c.ctx.Err() != nil && (errors.Is(err, c.ctx.Err()) || errors.Is(err, context.Cause(c.ctx))) {
		return nil
	}
	return err
}

// usualGrace is what Grace gives if nobody has said when the child is killed.
const usualGrace = 5 * time.Second

// Grace is for what a child has to finish when its context, ctx, has ended: a
// context that lives until shortly before the process is killed.
func Grace(ctx context.Context) (context.Context, context.CancelFunc) {
	grace := usualGrace
	var stopped *Stopped
	if errors.As(context.Cause(ctx), &stopped) && !stopped.Deadline.IsZero() {
		grace = time.Until(stopped.Deadline) * 9 / 10
	}
	return context.WithTimeoutCause(context.WithoutCancel(ctx), grace, fmt.Errorf("the child has to end within %s", grace))
}
