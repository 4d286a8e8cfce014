package client

import (
	"context"
	"errors"
	"iter"
	"time"

	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
	"google.golang.org/grpc/status"
)

// From says what to watch, and from where on. The zero From is all instances,
// and all that there is before what changes.
type From struct {
	// Instance is the only one of interest; empty: all.
	Instance string
	// Epoch and Revision are the place of the last change that is known, of an
	// Update or of a list. What changed since is told first.
	Epoch    string
	Revision uint64
	// Skip leaves out what there is: only what changes from now on is told.
	// It is not for use with Epoch and Revision.
	Skip bool
}

// Update is what a watch of Ts tells.
type Update[T any] struct {
	Kind     UpdateKind
	Value    T      // as it stands now; of Changed
	Instance string // of Changed and Gone
	// Epoch and Revision are the place in the order of changes: From may go on
	// there.
	Epoch    string
	Revision uint64
	Reason   error // of StartedOver: why
}

// UpdateKind is what an Update says.
type UpdateKind int

const (
	// Changed is a new or changed value, or an event; also of what there was when
	// the watch began.
	Changed UpdateKind = iota + 1
	// Gone says that there is nothing to tell of the instance any more.
	Gone
	// CaughtUp says that all that there was has been told. It comes once, and
	// once after each StartedOver.
	CaughtUp
	// StartedOver says that changes may have been missed: the agent is another
	// one than before, or more had changed than it keeps. What was told before
	// does not count any more; all that there is follows.
	StartedOver
)

// WatchProcesses tells about the processes of the machine, and then about each
// that changes, until ctx ends. When the connection breaks, or the agent
// restarts, the watch goes on by itself where it was; where that is not possible
// it starts over, and says so.
//
// The range ends with the first error. That ctx ended is one; that there is no
// agent is one only before the first Update.
func (c *Client) WatchProcesses(ctx context.Context, from From) iter.Seq2[Update[*machineagentv1.Process], error] {
	return watching(ctx, c, from, func(ctx context.Context, start *machineagentv1.WatchStart) (answers[*machineagentv1.WatchProcessesResponse], error) {
		return c.Processes.WatchProcesses(ctx, &machineagentv1.WatchProcessesRequest{Start: start, Instance: from.Instance})
	}, func(r *machineagentv1.WatchProcessesResponse) (*machineagentv1.Process, string) {
		return r.GetProcess(), r.GetProcess().GetInstance()
	})
}

// WatchNeeds tells about the needs of the LAN and what the agent made of each, as
// WatchProcesses does.
func (c *Client) WatchNeeds(ctx context.Context, from From) iter.Seq2[Update[*machineagentv1.NeedDecision], error] {
	return watching(ctx, c, from, func(ctx context.Context, start *machineagentv1.WatchStart) (answers[*machineagentv1.WatchNeedsResponse], error) {
		return c.Needs.WatchNeeds(ctx, &machineagentv1.WatchNeedsRequest{Start: start, Instance: from.Instance})
	}, func(r *machineagentv1.WatchNeedsResponse) (*machineagentv1.NeedDecision, string) {
		return r.GetNeed(), r.GetNeed().GetNeed().GetInstance()
	})
}

// WatchServices tells about the services of the LAN, as WatchProcesses does.
func (c *Client) WatchServices(ctx context.Context, from From) iter.Seq2[Update[*machineagentv1.Service], error] {
	return watching(ctx, c, from, func(ctx context.Context, start *machineagentv1.WatchStart) (answers[*machineagentv1.WatchServicesResponse], error) {
		return c.Directory.WatchServices(ctx, &machineagentv1.WatchServicesRequest{Start: start, Instance: from.Instance})
	}, func(r *machineagentv1.WatchServicesResponse) (*machineagentv1.Service, string) {
		return r.GetService(), r.GetService().GetInstance()
	})
}

// WatchEvents tells the events that the agent still keeps, and then each as it
// happens, as WatchProcesses does. After StartedOver come those that the agent
// keeps now, some of which may have been told before.
func (c *Client) WatchEvents(ctx context.Context, from From) iter.Seq2[Update[*machineagentv1.Event], error] {
	return watching(ctx, c, from, func(ctx context.Context, start *machineagentv1.WatchStart) (answers[*machineagentv1.WatchEventsResponse], error) {
		return c.Agent.WatchEvents(ctx, &machineagentv1.WatchEventsRequest{Start: start, Instance: from.Instance})
	}, func(r *machineagentv1.WatchEventsResponse) (*machineagentv1.Event, string) {
		return r.GetEvent(), r.GetEvent().GetInstance()
	})
}

const (
	againFirst = 50 * time.Millisecond // after a watch broke
	againMost  = time.Second
)

// answers are a stream of answers R.
type answers[R any] interface{ Recv() (R, error) }

// answer is an answer of a watch.
type answer interface {
	GetEpoch() string
	GetRevision() uint64
	GetInitialEnd() *machineagentv1.InitialEnd
	GetBookmark() *machineagentv1.Bookmark
}

// watching is one watch over as many streams as it takes. value is what an answer
// says that is neither Gone nor a mark.
func watching[R answer, T any](ctx context.Context, c *Client, from From,
	open func(context.Context, *machineagentv1.WatchStart) (answers[R], error), value func(R) (T, string),
) iter.Seq2[Update[T], error] {
	return func(yield func(Update[T], error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		w := &watch[R, T]{open: open, value: value, yield: yield, from: from}
		for wait := againFirst; ; {
			heard, err := w.once(ctx)
			switch {
			case err == nil: // the caller has enough
				return
			case errors.Is(err, ErrNotKept):
				if !yield(Update[T]{Kind: StartedOver, Reason: err}, nil) {
					return
				}
				w.from, w.caughtUp = From{}, false
				continue
			case ctx.Err() != nil || !w.begun || !passes(err):
				yield(Update[T]{}, err)
				return
			}
			if heard {
				wait = againFirst
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				yield(Update[T]{}, c.typed(ctx, status.FromContextError(ctx.Err()).Err()))
				return
			}
			wait = min(2*wait, againMost)
		}
	}
}

// passes tells whether the error of a watch that has begun is one that passes.
func passes(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrSlow) || errors.Is(err, ErrExhausted)
}

type watch[R answer, T any] struct {
	open     func(context.Context, *machineagentv1.WatchStart) (answers[R], error)
	value    func(R) (T, string)
	yield    func(Update[T], error) bool
	from     From
	begun    bool // there was an answer
	caughtUp bool // and that was said
}

// once watches until the stream breaks. It tells whether it heard anything; the
// error is nil if the caller has enough.
func (w *watch[R, T]) once(ctx context.Context) (heard bool, err error) {
	start := &machineagentv1.WatchStart{SkipInitial: w.from.Skip}
	if w.from.Revision > 0 {
		start.Epoch, start.StartRevision = w.from.Epoch, w.from.Revision+1
	}
	s, err := w.open(ctx, start)
	if err != nil {
		return false, err
	}
	for {
		r, err := s.Recv()
		if err != nil {
			return heard, err
		}
		heard, w.begun = true, true
		w.from = From{Epoch: r.GetEpoch(), Revision: r.GetRevision()}
		u := Update[T]{Epoch: r.GetEpoch(), Revision: r.GetRevision()}
		switch {
		case r.GetInitialEnd() != nil || r.GetBookmark() != nil:
			if w.caughtUp {
				continue
			}
			u.Kind, w.caughtUp = CaughtUp, true
		case gone(r) != "":
			u.Kind, u.Instance = Gone, gone(r)
		default:
			u.Kind = Changed
			u.Value, u.Instance = w.value(r)
		}
		if !w.yield(u, nil) {
			return heard, nil
		}
	}
}

// gone is the instance that an answer says is gone; empty if it says something
// else.
func gone(r any) string {
	if r, ok := r.(interface{ GetGone() string }); ok {
		return r.GetGone()
	}
	return ""
}
