package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"sync"
	"time"

	"github.com/allexgo/machine-agent/agent/output"
)

// Tail says what to read of the log of an instance.
type Tail struct {
	Instance string
	Position *int64 // where to begin
	Lines    *int   // the last ones, if Position is nil; nil as well: all that is kept
	Follow   bool   // go on with what is written from now on
}

// LogPiece is a part of a log.
type LogPiece = output.Piece

const (
	logPiece   = 32 << 10 // bytes of a LogPiece
	logReaders = 16       // of one log at a time
)

// How long a follower waits before it looks again.
const (
	firstLook = 10 * time.Millisecond
	lastLook  = 250 * time.Millisecond
)

// TailLogs hands the log of an instance to give, piece by piece; a piece is not to
// be kept. It waits for nobody but give, and nobody waits for it. It ends at the
// end of the log, or if it follows with ctx or the agent, and with an error of
// give. Errors: NotFound, Invalid, WrongState, Exhausted, Unavailable.
func (a *Agent) TailLogs(ctx context.Context, t Tail, give func(LogPiece) error) error {
	if p, err := a.Process(ctx, t.Instance); err == nil && p.Origin == Outside && p.LogFile == "" {
		return &Error{Kind: WrongState, Reason: OutsideProcess, Metadata: map[string]string{"instance": t.Instance},
			Message: fmt.Sprintf("instance %q was not started by the agent, which does not see what it writes; ask whoever started it", t.Instance)}
	}
	if !a.readers.enter(t.Instance) {
		return &Error{Kind: Exhausted, Reason: TooManyReaders,
			Metadata: map[string]string{"instance": t.Instance, "limit": strconv.Itoa(logReaders)},
			Message:  fmt.Sprintf("the log of instance %q has %d readers, as many as it may have; end one of them", t.Instance, logReaders)}
	}
	defer a.readers.leave(t.Instance)
	r, err := a.openLog(t)
	if err != nil {
		return err
	}
	if t.Follow { // so that whoever waits knows where it is
		if err := give(LogPiece{Position: r.Position()}); err != nil {
			return err
		}
	}
	buf := make([]byte, logPiece)
	wait := firstLook
	for {
		piece, err := r.Next(buf)
		switch {
		case err == nil:
			wait = firstLook
			if err := give(piece); err != nil {
				return err
			}
			continue
		case errors.Is(err, output.ErrBeyond):
			return &Error{Kind: NotFound, Reason: InstanceNotFound, Metadata: map[string]string{"instance": t.Instance},
				Message: fmt.Sprintf("the log of instance %q that was read has gone, as nobody had written there for days, and a new one has begun; read that from its beginning", t.Instance)}
		case err != io.EOF:
			return err
		case !t.Follow:
			return nil
		}
		select {
		case <-time.After(wait):
			wait = min(wait*3/2, lastLook)
		case <-a.done:
			return leaving()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *Agent) openLog(t Tail) (r *output.Reader, err error) {
	path := a.Store.LogPath(t.Instance)
	switch {
	case t.Position != nil:
		r, err = a.logs.From(path, *t.Position)
	case t.Lines != nil:
		r, err = a.logs.Last(path, *t.Lines)
	default:
		r, err = a.logs.Oldest(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &Error{Kind: NotFound, Reason: InstanceNotFound, Metadata: map[string]string{"instance": t.Instance},
			Message: fmt.Sprintf("there is no log of an instance %q on this machine; `agentctl ps` shows the instances that there are", t.Instance)}
	case errors.Is(err, output.ErrBeyond):
		return nil, invalid("position", "%v", err)
	}
	if err == nil && !t.Follow {
		r.Stop()
	}
	return r, err
}

// readers are those of all logs, by instance.
type readers struct {
	mu sync.Mutex
	of map[string]int
}

func (r *readers) enter(instance string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[string]int{}
	}
	if r.of[instance] == logReaders {
		return false
	}
	r.of[instance]++
	return true
}

func (r *readers) leave(instance string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of[instance]--; r.of[instance] == 0 {
		delete(r.of, instance)
	}
}
