package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/allexgo/machine-agent/internal/fault"
	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// pendingAfter is how long a bid may stay unanswered before it counts as one
// that waits behind another bidder's. A free need is answered in two round
// trips.
const pendingAfter = 250 * time.Millisecond

// dieWithin is how long the end of a bid waits for the LAN manager to know.
const dieWithin = time.Second

// answerWithin is how long the LAN manager may take to judge a response
// (design section 4.4).
const answerWithin = 30 * time.Second

// respondAgain are the waits between responses while the LAN manager finds no
// port reachable (design section 4.4).
var respondAgain = []time.Duration{200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}

// Answer is what is sent in response to a challenge.
type Answer struct {
	Need      table.Need
	IPAddress string
	Ports     table.Ports
	PID       int
	// Still is asked before each response whether the answer is still true; it may
	// take its time. nil is as good as a nil error.
	Still func() error
	// Where is asked when the LAN manager has found no port reachable for the last
	// time: it says in words where the service listens, for the error. It may be nil,
	// and may take its time.
	Where func() string
}

// Bid is an offer to serve one need, from the call of Link.Bid to its BidEnded
// event or to Cancel. Its methods never block and may be called from any
// goroutine.
type Bid struct {
	Instance string

	cancel context.CancelFunc
	answer chan Answer
}

// Respond answers the challenge. The first call counts.
func (b *Bid) Respond(a Answer) {
	select {
	case b.answer <- a:
	default:
	}
}

// Cancel takes the bid back, so that others get the need. No event of this
// bid follows but those that are already on their way.
func (b *Bid) Cancel() { b.cancel() }

// Bid offers to serve the open need of that instance. Without a session the
// bid ends at once as Lost.
func (l *Link) Bid(instance string) *Bid {
	ctx, cancel := context.WithCancel(l.ctx)
	b := &Bid{Instance: instance, cancel: cancel, answer: make(chan Answer, 1)}
	l.mu.Lock()
	s := l.now
	if s != nil {
		s.bids.Add(1)
	}
	l.mu.Unlock()
	l.tasks.Go(func() {
		defer cancel()
		if s == nil {
			l.emit(ctx, BidEnded{b, Lost, ErrNoSession})
			return
		}
		defer s.bids.Done()
		outcome, err := l.bid(ctx, s, b)
		l.emit(ctx, BidEnded{b, outcome, err})
	})
	return b
}

// bid walks the way of one offer (lan/PROTOCOL.md section 8). When it returns
// the need session is dead or dying.
func (l *Link) bid(ctx context.Context, s *session, b *Bid) (Outcome, error) {
	answered := l.pendingUnless(ctx, b)
	defer answered()
	need, err := s.needs.Sub(ctx, b.Instance, map[string]string{"name": s.seenAs})
	if err != nil {
		return failure(err)
	}
	outcome, err := l.offer(ctx, s, need, b, answered)
	if outcome == Accepted {
		l.tasks.Go(func() { l.awaitEnd(need) })
	} else {
		l.end(ctx, need) // whatever went wrong, the need must not wait for us
	}
	return outcome, err
}

// end ends the session of a need, unless it is lost anyway.
func (l *Link) end(ctx context.Context, need *wire.Session) {
	if errors.Is(need.Err(), wire.ErrLost) {
		return
	}
	dying, stop := context.WithTimeout(context.WithoutCancel(ctx), dieWithin)
	defer stop()
	_ = need.Die(dying)
}

// awaitEnd waits for the LAN manager to end the session of a need that was won,
// and does it itself if nothing comes.
func (l *Link) awaitEnd(need *wire.Session) {
	late := time.NewTimer(dieWithin)
	defer late.Stop()
	select {
	case <-need.Done():
	case <-l.ctx.Done():
	case <-late.C:
		l.end(l.ctx, need)
	}
}

// pendingUnless says that a bid is pending, unless it is answered soon. What
// happens after answered returns is heard after that, too.
func (l *Link) pendingUnless(ctx context.Context, b *Bid) (answered func()) {
	said := make(chan struct{})
	late := time.AfterFunc(pendingAfter, func() {
		defer close(said)
		l.emit(ctx, Pending{b})
	})
	return sync.OnceFunc(func() {
		if !late.Stop() {
			<-said
		}
	})
}

// offer sends the bid, waits for the challenge for as long as it takes, and
// responds when the owner does.
func (l *Link) offer(ctx context.Context, s *session, need *wire.Session, b *Bid, answered func()) (Outcome, error) {
	value, err := need.Call(ctx, wire.Protocol, "bid", map[string]string{"ipaddress": l.address(s)})
	answered()
	if err != nil {
		return failure(err)
	}
	var challenge struct {
		Bid       json.RawMessage `json:"bid"`
		Rejected  bool            `json:"rejected"`
		Challenge json.RawMessage `json:"c"`
	}
	if err := json.Unmarshal(value, &challenge); err != nil || challenge.Rejected || challenge.Challenge == nil {
		return Rejected, &wire.RejectedError{Code: "REJECTED", Message: "the LAN manager answered the bid with " + excerpt(value)}
	}
	l.emit(ctx, Challenged{b})
	select {
	case a := <-b.answer:
		return l.respond(ctx, need, challenge.Bid, a)
	case <-need.Done():
		return failure(need.Err())
	case <-ctx.Done():
		return Lost, ctx.Err()
	}
}

// respond gives the answer, again after a while as long as the LAN manager
// can not connect to it and the owner stands by it.
func (l *Link) respond(ctx context.Context, need *wire.Session, ticket json.RawMessage, a Answer) (Outcome, error) {
	for attempt := 0; ; attempt++ {
		if a.Still != nil {
			if err := a.Still(); err != nil {
				return Withheld, err
			}
		}
		_ = fault.At(fault.Responding)
		within, stop := context.WithTimeout(ctx, answerWithin)
		_, err := need.Call(within, wire.Protocol, "respond", ticket, a.record())
		stop()
		if err == nil {
			_ = fault.At(fault.Responded)
			return Accepted, nil
		}
		outcome, err := failure(err)
		switch {
		case outcome == Unreachable && attempt < len(respondAgain):
		case outcome == Unreachable && a.Where != nil:
			return outcome, fmt.Errorf("%w: %s", err, a.Where())
		default:
			return outcome, err
		}
		select {
		case <-time.After(respondAgain[attempt]):
		case <-need.Done():
			return failure(need.Err())
		case <-ctx.Done():
			return Lost, ctx.Err()
		}
	}
}

// record is the answer as it travels. The LAN manager reads the address, the
// ports (numbers, null for none) with their options, and the pid, which must be
// there.
func (a Answer) record() map[string]any {
	port := func(n int) any {
		if n == 0 {
			return nil
		}
		return n
	}
	record := map[string]any{
		"instancename": a.Need.InstanceName,
		"modulename":   a.Need.ModuleName,
		"ipaddress":    a.IPAddress,
		"tcpport":      port(a.Ports.TCP),
		"httpport":     port(a.Ports.HTTP),
		"wsport":       port(a.Ports.WS),
		"pid":          a.PID,
	}
	for _, options := range []string{"tcpoptions", "httpoptions", "wsoptions"} {
		if value, ok := a.Need.Rest[options]; ok {
			record[options] = value
		}
	}
	return record
}

// failure tells the outcome that an error of a need session means.
func failure(err error) (Outcome, error) {
	var rejected *wire.RejectedError
	switch {
	case errors.As(err, &rejected) && rejected.Code == "NO_PORTS_REACHABLE":
		return Unreachable, err
	case errors.Is(err, context.DeadlineExceeded):
		return TimedOut, err
	case errors.Is(err, wire.ErrLost), errors.Is(err, context.Canceled):
		return Lost, err
	default:
		// ALREADY_DESTROYED, "f", "-" and whatever else a LAN manager may
		// say: this session leads nowhere, the tables tell what is true.
		return Destroyed, err
	}
}

// excerpt is as much of odd input as belongs into a log line.
func excerpt(b []byte) string {
	const most = 120
	if len(b) > most {
		return string(b[:most]) + "..."
	}
	return string(b)
}
