package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lan/wire"
)

// ErrNoSession says that there is no LAN manager to talk to now.
var ErrNoSession = errors.New("there is no session with a LAN manager")

const (
	redialFirst = 50 * time.Millisecond
	redialMost  = 5 * time.Second
)

// Config is what a Link needs.
type Config struct {
	// Addresses are tried in turn, as host:port; the one that answered is
	// tried first the next time.
	Addresses []string
	// LocalIP is the address to dial from; nil lets the system choose.
	LocalIP net.IP
	// Address is what bids name as ours; empty means what the LAN manager sees.
	Address string
	// Name is this machine's, for people; ID is the agent's own, by which a
	// LAN manager of this project knows it again (design section 8).
	Name, ID string
	// Secrets are what a dial shows and asks for: the TLS side of wss, nil for
	// ws, and the token, "" for none. They are asked for at each dial, so that
	// they can be exchanged. Nil: ws without a token.
	Secrets func() (*tls.Config, string, error)
	// Emit receives the events, in order. It may block, but must return when
	// its context ends.
	Emit   func(context.Context, Event)
	Logger hclog.Logger
}

// Link is the link to the LAN manager. Its methods may be called from any
// goroutine; those without a context never block.
type Link struct {
	Config
	dial  func(ctx context.Context, address string) (wire.Conn, error)
	ctx   context.Context // ends with Run
	leave context.CancelFunc
	tasks sync.WaitGroup // bids, queries and messages
	told  sync.WaitGroup // messages that are not answered yet

	mu  sync.Mutex
	now *session // that the owner attends to; nil while there is none
}

// New makes a Link that does nothing until Run.
func New(c Config) *Link {
	l := &Link{Config: c}
	l.ctx, l.leave = context.WithCancel(context.Background())
	l.dial = l.dialWire
	return l
}

// Run keeps a session with a LAN manager until ctx ends. When it returns, no
// goroutine of the Link is left.
func (l *Link) Run(ctx context.Context) error {
	defer l.tasks.Wait()
	defer l.leave()
	stop := context.AfterFunc(ctx, l.leave)
	defer stop()

	wait := redialFirst
	failed := make([]error, len(l.Addresses)) // why there is no LAN manager there
	for at := 0; ; {
		address, began := l.Addresses[at%len(l.Addresses)], time.Now()
		up, err := l.session(l.ctx, address)
		if l.ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if up {
			clear(failed)
		} else {
			failed[at%len(failed)] = err
			if len(failed) > 1 {
				err = Nowhere(failed)
			}
		}
		l.emit(l.ctx, Down{LANManager: address, Err: err})
		if !up {
			at++
		} else if time.Since(began) > redialMost { // else it may be one that drops everybody
			wait = redialFirst
		}
		if !up && at%len(l.Addresses) != 0 {
			continue // it may be at the next one
		}
		select {
		case <-time.After(jitter(wait)):
		case <-l.ctx.Done():
			return context.Cause(ctx)
		}
		wait = min(2*wait, redialMost)
	}
}

// jitter spreads d by a quarter to both sides, so that the agents of a LAN do
// not come back in one wave.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// ReportDown tells the LAN manager that the service of an instance is gone,
// and why; exit is how its process ended, nil if that lives. Nothing is told
// without a session: the next one begins with a reconciliation. The channel is
// closed when the LAN manager has answered, or will not answer any more.
func (l *Link) ReportDown(instance, reason string, exit *process.Exit) (answered <-chan struct{}) {
	return l.tell("notifyServiceDown", instance, why(reason, exit))
}

// ReportFailing tells the LAN manager why the open need of an instance can not be
// served here, for people who look there; exit is as in ReportDown. Only a LAN
// manager of this project understands it (design section 8); others refuse the
// call.
func (l *Link) ReportFailing(instance, reason string, exit *process.Exit) {
	l.tell("notifyServiceFails", instance, why(reason, exit))
}

// why is a reason as it travels, and how a process ended if one did.
func why(reason string, exit *process.Exit) map[string]any {
	why := map[string]any{"reason": reason}
	if exit != nil {
		why["status"] = status(*exit)
	}
	return why
}

// status is the end of a process as it travels: its code, its signal, or that
// nobody knows.
func status(e process.Exit) map[string]any {
	switch {
	case e.Unknown:
		return map[string]any{"unknown": true}
	case e.Signal != "":
		return map[string]any{"signal": e.Signal}
	}
	return map[string]any{"code": e.Code}
}

// EngageModule tells the LAN manager that a module was loaded here.
func (l *Link) EngageModule(name string) { l.tell("notifyModuleEngaged", name) }

// Keep confirms after Up which services still run here. Only a LAN manager of
// this project understands it (design section 8); others refuse the call, by which
// they are Recognised.
func (l *Link) Keep(instances []string) {
	if instances == nil {
		instances = []string{} // null is no list
	}
	l.call(func(s *session, err error) {
		var refused *wire.RejectedError
		if err == nil || errors.As(err, &refused) {
			l.emit(l.ctx, Recognised{LANManager: s.address, Ours: err == nil})
		}
	}, "keepServices", instances)
}

// tell calls a method of the LAN manager without waiting for the answer. The
// channel is closed when it has come, or will not come any more.
func (l *Link) tell(method string, args ...any) <-chan struct{} {
	return l.call(func(*session, error) {}, method, args...)
}

// call is tell with something to do about the answer.
func (l *Link) call(hear func(*session, error), method string, args ...any) <-chan struct{} {
	answered := make(chan struct{})
	s := l.current()
	if s == nil {
		close(answered)
		return answered
	}
	l.told.Add(1)
	l.tasks.Go(func() {
		_, err := s.root.Call(l.ctx, wire.Business, method, args...)
		if err != nil {
			l.Logger.Debug("LAN manager did not take a message", "method", method, "error", err)
		}
		close(answered)
		l.told.Done()
		hear(s, err)
	})
	return answered
}

// Flush waits until the LAN manager has answered what it was told, or ctx ends.
// Nothing may be told meanwhile.
func (l *Link) Flush(ctx context.Context) {
	answered := make(chan struct{})
	l.tasks.Go(func() {
		l.told.Wait()
		close(answered)
	})
	select {
	case <-answered:
	case <-ctx.Done():
	}
}

// AddNeed has the LAN manager keep a need. It blocks for the answer. Errors:
// ErrNoSession, *wire.RejectedError, those of ctx.
func (l *Link) AddNeed(ctx context.Context, n table.Need) error {
	return l.ask(ctx, "addNeed", n)
}

// RemoveNeed has the LAN manager forget a need. It blocks for the answer.
// Errors: as AddNeed.
func (l *Link) RemoveNeed(ctx context.Context, instance string) error {
	return l.ask(ctx, "removeNeed", instance)
}

func (l *Link) ask(ctx context.Context, method string, arg any) error {
	s := l.current()
	if s == nil {
		return ErrNoSession
	}
	_, err := s.root.Call(ctx, wire.Business, method, arg)
	if errors.Is(err, wire.ErrLost) || errors.Is(err, wire.ErrForgotten) || errors.Is(err, wire.ErrEnded) {
		return fmt.Errorf("%w: it was lost before the answer came", ErrNoSession)
	}
	return err
}

// emit tells the owner, unless ctx ended: a bid that was cancelled is silent.
func (l *Link) emit(ctx context.Context, e Event) {
	if ctx.Err() == nil {
		l.Config.Emit(ctx, e)
	}
}

func (l *Link) current() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (l *Link) attend(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = s
}

func (l *Link) leaveSession(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == s {
		l.now = nil
	}
}

// address is what bids and answers of s name as ours.
func (l *Link) address(s *session) string {
	if l.Address != "" {
		return l.Address
	}
	return s.seenAs
}
