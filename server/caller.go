package server

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/allexgo/machine-agent/agent"
)

// caller is who is at the other end of a connection, as the operating system
// says: the process that called connect, which need not be the one that holds
// the connection now. That is why each call asks whether it still lives.
type caller struct {
	pid     int  // 0: not known
	uid     int  // -1: not known
	trusted bool // the listener lets nobody in but operators
	pin     *pin // nil: its end can not be seen

	owned atomic.Pointer[ownership]
}

// AuthType makes caller a credentials.AuthInfo.
func (*caller) AuthType() string { return "local" }

// String is like "pid 4242 (uid 1000)".
func (c *caller) String() string { return fmt.Sprintf("pid %d (%s)", c.pid, c.user()) }

// user is like "uid 1000".
func (c *caller) user() string {
	if c.uid < 0 {
		return "uid unknown"
	}
	return "uid " + strconv.Itoa(c.uid)
}

// callerOf finds the caller of a call.
func callerOf(ctx context.Context) (*caller, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.AuthInfo.(*caller); ok {
			return c, nil
		}
	}
	return nil, fmt.Errorf("a call came without a caller")
}

// alive is an error if the caller's process is gone: whoever has the connection
// now (a child it forked) is not the one that the operating system vouched for.
func (c *caller) alive() error {
	if !c.pin.gone() {
		return nil
	}
	return denied(c, "", "the process that opened this connection, %s, is gone; "+
		"who holds the connection now must open one of its own", c)
}

// ownership is a remembered answer to "whose process is the caller?". It stands while
// the agent has the roster that it had then, and after that as long as owner.Instance
// has the very process that it had.
type ownership struct {
	owner  agent.Owner
	roster uint64
	pid    int
	start  time.Time
}

// owner tells which instance c is part of, if any.
//
// To find out costs the agent reads of /proc and a look at all instances, so the answer
// is remembered with the connection. c itself lives as long as the connection is of use,
// and cannot leave its instance, but its instance can leave it: the leader ends, c has
// escaped from the tree, and a replacement starts; or c was an outside process that was
// reported down. And it can come to be in one: a child may call before the agent has
// noted it, and an outside process is part of its instance from its registration on.
// All of that is a change of the roster. After one, an answer that names an instance
// holds if that has the same process, which the agent tells from memory.
func (s *Server) owner(ctx context.Context, c *caller) (agent.Owner, error) {
	if c.pid <= 0 {
		return agent.Owner{}, nil // of another pid namespace, so none of ours
	}
	now := &ownership{roster: s.config.Agent.Roster()} // before the questions
	if o := c.owned.Load(); o != nil {
		if o.roster == now.roster {
			return o.owner, nil
		}
		if o.owner.Instance != "" && s.has(ctx, o) {
			now.owner, now.pid, now.start = o.owner, o.pid, o.start
			c.owned.Store(now)
			return o.owner, nil
		}
	}
	var err error
	if now.owner, err = s.config.Agent.Owner(ctx, c.pid); err != nil {
		return agent.Owner{}, err
	}
	// Still alive, so the pid was its own all the time.
	if err := c.alive(); err != nil {
		return agent.Owner{}, err
	}
	if now.owner.Instance != "" {
		p, err := s.config.Agent.Process(ctx, now.owner.Instance)
		if err != nil || p.PID == 0 {
			return now.owner, nil
		}
		now.pid, now.start = p.PID, p.StartTime
	}
	c.owned.Store(now)
	return now.owner, nil
}

// has tells whether an instance has the process that it had.
func (s *Server) has(ctx context.Context, o *ownership) bool {
	p, err := s.config.Agent.Process(ctx, o.owner.Instance)
	return err == nil && p.PID == o.pid && p.StartTime.Equal(o.start)
}
