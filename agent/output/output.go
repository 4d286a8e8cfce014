// Package output is what processes say: the files of the log directory, kept
// within bounds while they are written, and read by position (design section
// 11).
//
// A process appends to <name>.log by itself; nobody stands in between, so that
// its output survives the agent. When that file has more than it may, its head
// is copied into a generation and then released, which leaves a hole:
//
//	<name>.log               what the process writes; the head is a hole
//	<name>.log.<from>-<to>   a generation: the bytes between two positions
//	<name>.log.part          a generation that is being written
//	<name>.log.base          the position of the file's first byte, if that is not 0
//
// A position counts the bytes of a log from its first one on and means the same
// for ever. A process that empties its file begins at a position that nobody has
// seen yet.
//
// Logs owns the files and one goroutine, that of Run, however many logs there
// are. Only package agent imports it.
package output

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Limit is how much of its output an instance keeps.
type Limit struct {
	MaxSize int64 // bytes of the log file, above which its head becomes a generation
	Keep    int   // generations
}

const (
	tick     = time.Second            // between two looks at the free space of the disk
	quickest = 100 * time.Millisecond // between two looks at one log
	slowest  = time.Minute
	blind    = 5 * time.Second // instead of slowest, where the free space is not told
	slower   = 8               // times, from one pause between two looks at a log to the next
	slack    = 64 << 20        // bytes: when so many have gone from the disk, all logs are looked at
	unsummed = 32              // the part of MaxTotal that may be written before the sum is looked at again
)

// Config is what Logs are made of.
type Config struct {
	Directory string // of the logs
	MaxTotal  int64  // bytes that all files there may take; 0: no bound
	Logger    hclog.Logger
}

// Logs are the logs of one machine. They are safe for concurrent use.
type Logs struct {
	Config
	Warnings []string // for people; not to be changed
	rotates  bool     // the file system can release the head of a file

	mu   sync.Mutex
	logs map[string]*log // by path
	next time.Time       // before it no log is to be looked at

	// Of Run alone.
	free  uint64 // the most that the disk had since the last look at all logs
	grown int64  // bytes, since the last look at their sum
	swept time.Time
}

// New finds the logs that are there. Run has to be called for them to be kept
// within bounds. What is not well with the directory, Warnings tell.
func New(c Config) *Logs {
	s := &Logs{Config: c, logs: map[string]*log{}}
	if err := s.scan(); err != nil {
		s.Warnings = append(s.Warnings, fmt.Sprintf("the older parts of logs can not be found: %v", err))
	}
	err := tryRelease(c.Directory)
	s.rotates = err == nil || diskFull(err) // which says nothing of the file system
	if !s.rotates {
		s.Warnings = append(s.Warnings, fmt.Sprintf("logs are not rotated here, but emptied when they reach their limit: "+
			"%v; put statedirectory on another file system, such as ext4, xfs or tmpfs", err))
	}
	return s
}

// Use has the log at path kept within limit until release is called.
func (s *Logs) Use(path string, limit Limit) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.get(path)
	l.users++
	l.limit, l.pace, l.seen = limit, tick, time.Now()
	s.next = time.Time{}
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.users--
		l.pace, l.seen = 0, time.Time{} // to be looked at once more
		s.next = time.Time{}
	})
}

// get finds or makes the log at path. The caller holds s.mu.
func (s *Logs) get(path string) *log {
	l := s.logs[path]
	if l == nil {
		l = &log{path: path, in: s}
		s.logs[path] = l
	}
	return l
}

// find is the log at path, if there is one.
func (s *Logs) find(path string) (*log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.logs[path]; l != nil {
		return l, nil
	}
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	return s.get(path), nil
}

// Run keeps the logs within their bounds until ctx ends. A log has more than
// its limit by no more than what its process writes in a second and while its
// head is copied, and by the 64 MiB that a process which had been silent may
// write before the disk shows it. Silent processes cost next to nothing: their
// logs are looked at once a minute.
func (s *Logs) Run(ctx context.Context) {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		next.Reset(s.round(time.Now()))
	}
}

// round looks at the logs whose time has come and tells when the next one's
// will have.
func (s *Logs) round(now time.Time) time.Duration {
	longest := slowest
	crowded, known := s.crowded()
	if !known {
		longest = blind
	}
	for _, l := range s.due(now, crowded) {
		s.grown += s.look(l, now, longest)
	}
	sweep := now.Sub(s.swept) >= sweepEvery
	if sweep {
		s.swept = now
		s.sweep(now)
	}
	if s.MaxTotal > 0 && (sweep || s.grown > s.MaxTotal/unsummed) {
		s.grown = 0
		s.reclaim()
	}
	return s.wait(now)
}

// crowded tells whether the disk has got so much fuller that somebody must have
// written a lot.
func (s *Logs) crowded() (crowded, known bool) {
	free, known := freeSpace(s.Directory)
	s.free = max(s.free, free)
	if !known || s.free-free < slack {
		return false, known
	}
	s.free = free
	return true, true
}

// due are the logs to be looked at now.
func (s *Logs) due(now time.Time, all bool) (due []*log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if all {
		s.next = time.Time{}
	}
	if now.Before(s.next) {
		return nil
	}
	for _, l := range s.logs {
		if l.watched() && (all || !now.Before(l.seen.Add(l.pace))) {
			due = append(due, l)
		}
	}
	return due
}

// wait is the time until the next round.
func (s *Logs) wait(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !now.Before(s.next) {
		s.next = now.Add(slowest)
		for _, l := range s.logs {
			if due := l.seen.Add(l.pace); l.watched() && due.Before(s.next) {
				s.next = due
			}
		}
	}
	return max(quickest, min(tick, s.next.Sub(now)))
}

// look brings one log within its limit and tells how much it had grown.
func (s *Logs) look(l *log, now time.Time, longest time.Duration) int64 {
	s.mu.Lock()
	limit, since := l.limit, now.Sub(l.seen)
	s.mu.Unlock()
	l.mu.Lock()
	grown, err := l.keep(limit)
	room := limit.MaxSize - l.live()
	l.mu.Unlock()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Logger.Error("a log can not be kept within its limit", "file", l.path, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.seen = now
	l.pace = pace(l.pace, since, longest, grown, room)
	return grown
}

// pace is the time until a log is looked at again: half of what it takes to
// reach its limit if it goes on as it has since the last look, and at most so many
// times as long as the last time.
func pace(last, since, longest time.Duration, grown, room int64) time.Duration {
	next := longest
	if grown > 0 {
		if full := float64(since) * float64(room) / float64(grown) / 2; full < float64(longest) {
			next = time.Duration(full)
		}
	}
	return max(quickest, min(next, slower*last))
}

// tryRelease finds out whether the file system of a directory can release the
// head of a file.
func tryRelease(directory string) error {
	const size = 1 << 20
	f, err := os.CreateTemp(directory, ".log.*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 2*size), 0); err != nil {
		return err
	}
	return release(f, size)
}

// release makes a hole of what lies before to, which keeps its size and all
// positions behind it. It may be repeated.
func release(f *os.File, to int64) error {
	if err := punch(f, to); err != nil {
		return fmt.Errorf("can not release the head of %s: %w", filepath.Base(f.Name()), err)
	}
	if at, err := data(f, 0); err != nil || at < to {
		return fmt.Errorf("can not find the hole in %s again: %w", filepath.Base(f.Name()), errors.ErrUnsupported)
	}
	return nil
}
