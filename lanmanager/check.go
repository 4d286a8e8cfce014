package lanmanager

import (
	"context"
	"net"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/allexgo/machine-agent/internal/fault"
)

const (
	connectTimeout = time.Second // for one port
	checksOfParty  = 64          // under way at once
	checksAtOnce   = 1024        // of all parties
)

// checks are the port checks. They run outside of the core, so many at once of
// a party and of all together, so that unreachable ports of one hold up no
// other; where there is no room, parties take turns. It belongs to the core.
type checks struct {
	crew    *crew
	seconds prometheus.Observer
	running int
	turns   []*party // those who have checks that could begin, once each
}

// checkQueue is a party's part of them.
type checkQueue struct {
	running int
	waiting []check
	turn    bool // it is in turns
}

// check tries the ports of an answer. Wanted tells whether that is still to be
// done; done is called with the result, unless it is not.
type check struct {
	answer answer
	wanted func() bool
	done   func(ok bool)
}

func (c *checks) add(p *party, one check) {
	p.checks.waiting = append(p.checks.waiting, one)
	c.queue(p)
	c.start()
}

// queue gives a party its turn, if it has use for one.
func (c *checks) queue(p *party) {
	if q := &p.checks; !q.turn && q.running < checksOfParty && len(q.waiting) > 0 {
		q.turn = true
		c.turns = append(c.turns, p)
	}
}

// start begins as many checks as there is room for.
func (c *checks) start() {
	for c.running < checksAtOnce && len(c.turns) > 0 {
		p := c.turns[0]
		c.turns = c.turns[1:]
		p.checks.turn = false
		one := p.checks.waiting[0]
		p.checks.waiting = p.checks.waiting[1:]
		if one.wanted() {
			c.run(p, one)
		}
		c.queue(p)
	}
}

func (c *checks) run(p *party, one check) {
	c.running++
	p.checks.running++
	c.crew.outside(func(ctx context.Context) func() {
		began := time.Now()
		ok := reachable(ctx, one.answer.address, one.answer.ports.given())
		c.seconds.Observe(time.Since(began).Seconds())
		_ = fault.At(fault.PortChecked)
		return func() {
			c.running--
			p.checks.running--
			if one.wanted() {
				one.done(ok)
			}
			c.queue(p)
			c.start()
		}
	})
}

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
