package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/allexgo/machine-agent/agent"
	"github.com/allexgo/machine-agent/agent/journal"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

const (
	bookmarkPeriod = 30 * time.Second // of silence on a watch
	takeLimit      = 30 * time.Second // for a caller to take what is told
	lastWords      = 500 * time.Millisecond
	watchLimit     = 256 // watches; each holds what is on its way, some 64 KiB
	watchesOfOne   = 32  // process
)

// watches are those that there are. A watch has a goroutine that reads the
// journal and sends; it can be stuck in that as long as its caller does not
// read, and so is not the goroutine of the call, which ends the watch then.
type watches struct {
	senders sync.WaitGroup

	mu    sync.Mutex
	all   int
	byPID map[int]int
}

func (w *watches) enter(pid int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.all >= watchLimit:
		return tooMany(fmt.Sprintf("this agent has %d watches, which is the most; end some", watchLimit), watchLimit)
	case pid > 0 && w.byPID[pid] >= watchesOfOne:
		return tooMany(fmt.Sprintf("process %d has %d watches, which is the most; one without an instance shows all instances", pid, watchesOfOne), watchesOfOne)
	}
	if w.byPID == nil {
		w.byPID = make(map[int]int)
	}
	w.all++
	w.byPID[pid]++
	return nil
}

func tooMany(message string, limit int) error {
	return &agent.Error{Kind: agent.Exhausted, Reason: agent.TooManyWatches, Message: message,
		Metadata: map[string]string{"limit": strconv.Itoa(limit)}}
}

func (w *watches) leave(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all--
	if w.byPID[pid]--; w.byPID[pid] == 0 {
		delete(w.byPID, pid)
	}
}

// watchRequest is what the requests for a watch have in common.
type watchRequest interface {
	GetStart() *pb.WatchStart
	GetInstance() string
}

// startOf is where the watch that r asks for begins.
func startOf(r watchRequest) (journal.Start, error) {
	start := r.GetStart()
	var v violations
	v.length("instance", r.GetInstance(), nameLimit)
	switch set := start.GetStartRevision() != 0; {
	case set && start.GetEpoch() == "":
		v.add("start.epoch", "must be set with start_revision; it came with the revision")
	case !set && start.GetEpoch() != "":
		v.add("start.start_revision", "must be set with epoch; it is that behind the last one that was seen")
	case set && start.GetSkipInitial():
		v.add("start.skip_initial", "must not be set with start_revision, which says what to begin with")
	}
	return journal.Start{
		Position: journal.Position{Epoch: start.GetEpoch(), Revision: start.GetStartRevision()},
		Skip:     start.GetSkipInitial(),
		Key:      r.GetInstance(),
	}, v.err()
}

// update is what one answer of a watch tells: an entry, or nothing but where the
// watch is.
type update[T any] struct {
	journal.Entry[T]
	kind updateKind
}

type updateKind int

const (
	anEntry updateKind = iota
	theInitialEnd
	aBookmark
)

// watch is one watch: it reads entries of T and sends messages M.
type watch[T, M any] struct {
	reader   *journal.Reader[T]
	message  func(epoch string, u update[T]) *M
	send     func(*M) error
	patience time.Duration
	silence  time.Duration
	stuck    chan struct{} // closed when the caller takes nothing any more
	sent     atomic.Uint64 // the last revision that he took
}

// serveWatch tells all that there is to tell, until the caller or the server
// leaves.
func serveWatch[T, M any](ctx context.Context, s *Server, r watchRequest,
	open func(journal.Start) (*journal.Reader[T], error), message func(string, update[T]) *M, send func(*M) error,
) error {
	start, err := startOf(r)
	if err != nil {
		return err
	}
	pid := grantOf(ctx).caller.pid
	if err := s.watches.enter(pid); err != nil {
		return err
	}
	reader, err := open(start)
	if err != nil {
		s.watches.leave(pid)
		return refusal(err)
	}
	w := &watch[T, M]{reader: reader, message: message, send: send, patience: s.patience, silence: s.silence, stuck: make(chan struct{})}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told := make(chan error, 1)
	s.watches.senders.Go(func() {
		defer s.watches.leave(pid)
		defer reader.Close()
		told <- w.tell(ctx)
	})
	select {
	case err := <-told:
		return err
	case <-reader.Overtaken():
		return w.slow()
	case <-w.stuck:
		return w.slow()
	case <-ctx.Done():
		return ctx.Err()
	case <-s.leaving:
	}
	reader.Finish()
	last := time.NewTimer(lastWords)
	defer last.Stop()
	select {
	case err := <-told:
		return err
	case <-last.C:
		return agentLeaves()
	}
}

// tell sends what the reader reads, until there is an error.
func (w *watch[T, M]) tell(ctx context.Context) error {
	alarm := time.AfterFunc(w.patience, func() { close(w.stuck) })
	alarm.Stop()
	put := func(u update[T]) error {
		alarm.Reset(w.patience)
		defer alarm.Stop()
		if err := w.send(w.message(w.reader.Epoch(), u)); err != nil {
			return err
		}
		w.sent.Store(u.Revision)
		return nil
	}
	mark := func(kind updateKind) error {
		return put(update[T]{Entry: journal.Entry[T]{Revision: w.reader.Revision()}, kind: kind})
	}
	initial := w.reader.Initial()
	if !initial {
		if err := mark(aBookmark); err != nil {
			return err
		}
	}
	for {
		batch, err := w.next(ctx)
		switch {
		case errors.Is(err, errSilence):
			err = mark(aBookmark)
		case err != nil:
			return w.ending(err)
		}
		for _, e := range batch {
			if err == nil {
				err = put(update[T]{Entry: e})
			}
		}
		if err == nil && initial && !w.reader.Initial() {
			initial = false
			err = mark(theInitialEnd)
		}
		if err != nil {
			return err
		}
	}
}

// errSilence says that nothing has changed for a while.
var errSilence = errors.New("nothing has changed")

func (w *watch[T, M]) next(ctx context.Context) ([]journal.Entry[T], error) {
	within, stop := context.WithTimeout(ctx, w.silence)
	defer stop()
	batch, err := w.reader.Next(within)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = errSilence
	}
	return batch, err
}

// refusal is why a watch does not begin.
func refusal(err error) error {
	var compacted *journal.CompactedError
	switch {
	case errors.As(err, &compacted):
		return &agent.Error{Kind: agent.Compacted, Reason: agent.RevisionCompacted,
			Message: fmt.Sprintf("a watch can not start there any more: %v; start without start_revision, with what there is", err),
			Metadata: map[string]string{
				"oldest_revision": strconv.FormatUint(compacted.Oldest, 10), "epoch": compacted.Epoch,
			}}
	case errors.Is(err, journal.ErrAhead):
		var v violations
		v.add("start.start_revision", "is of the future; it is that behind the last one that was seen")
		return v.err()
	}
	return err
}

// ending is why a watch ends that can not go on reading.
func (w *watch[T, M]) ending(err error) error {
	switch {
	case errors.Is(err, journal.ErrOvertaken):
		return w.slow()
	case errors.Is(err, journal.ErrEnded):
		return agentLeaves()
	}
	return err
}

// slow ends the watch of a caller that did not keep up.
func (w *watch[T, M]) slow() error {
	return &agent.Error{Kind: agent.CutOff, Reason: agent.SlowConsumer,
		Message: "the caller does not read, and more has changed than is kept for him; read faster, and go on behind the last revision or start over",
		Metadata: map[string]string{
			"last_revision": strconv.FormatUint(w.sent.Load(), 10), "epoch": w.reader.Epoch(),
		}}
}

func agentLeaves() error {
	return &agent.Error{Kind: agent.Unavailable, Reason: agent.ShuttingDown, Message: "the agent is leaving; watch again when it is back"}
}
