package output

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	sweepEvery = time.Hour
	// keptFor is how long the log of an instance is kept that has no process
	// here any more, from its last line on.
	keptFor = 7 * 24 * time.Hour
)

// sweep removes the logs of instances that are long gone.
func (s *Logs) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, l := range s.logs {
		if l.users == 0 && now.Sub(l.touched()) > keptFor {
			s.Logger.Info("the log of an instance that is long gone is removed", "file", path)
			s.remove(l)
		}
	}
}

// touched is when the log was written last; zero if it has no files.
func (l *log) touched() (last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	paths := []string{l.path}
	for _, g := range l.generations {
		paths = append(paths, l.generation(g))
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// remove removes all files of a log that nobody uses. The caller holds s.mu, so
// that nobody begins to.
func (s *Logs) remove(l *log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.forget(0)
	for _, path := range []string{l.path, l.path + baseSuffix} {
		if e := os.Remove(path); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		s.Logger.Warn("a log could not be removed", "file", l.path, "error", err)
		return
	}
	delete(s.logs, l.path)
}

// used is what the log takes of the disk.
func (l *log) used() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refresh(); err != nil || l.info == nil {
		return l.older()
	}
	return l.older() + usage(l.info)
}

// older is what the generations take of the disk.
func (l *log) older() (sum int64) {
	for _, g := range l.generations {
		sum += g.to - g.from
	}
	return sum
}

// reclaim brings all logs together within their bound: first go those without a
// process, then generations, the oldest first, and in the end the heads of logs
// that have more than their share.
func (s *Logs) reclaim() {
	all := s.all()
	total := int64(0)
	for _, l := range all {
		total += l.used()
	}
	if total <= s.MaxTotal {
		return
	}
	s.Logger.Warn("the logs take more of the disk than they may; the oldest go", "bytes", total, "allowed", s.MaxTotal)
	for _, l := range s.unused() {
		if total <= s.MaxTotal {
			return
		}
		total -= s.removeUnused(l)
	}
	for _, g := range s.generations() {
		if total <= s.MaxTotal {
			return
		}
		total -= g.remove()
	}
	share := s.MaxTotal / int64(len(all))
	for _, l := range all {
		if err := l.cut(share); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.Logger.Error("a log can not be kept within its limit", "file", l.path, "error", err)
		}
	}
}

func (s *Logs) all() (all []*log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.logs {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *log) int { return strings.Compare(a.path, b.path) })
	return all
}

// unused are the logs without a process, the oldest first.
func (s *Logs) unused() []*log {
	s.mu.Lock()
	defer s.mu.Unlock()
	touched := map[*log]time.Time{}
	var unused []*log
	for _, l := range s.logs {
		if l.users == 0 {
			touched[l] = l.touched()
			unused = append(unused, l)
		}
	}
	slices.SortFunc(unused, func(a, b *log) int { return touched[a].Compare(touched[b]) })
	return unused
}

// removeUnused removes a log, unless it has got a process meanwhile, and tells
// how much that gave.
func (s *Logs) removeUnused(l *log) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.users > 0 {
		return 0
	}
	used := l.used()
	s.remove(l)
	return used
}

// old is a generation with its log.
type old struct {
	log        *log
	generation generation
	made       time.Time
}

// generations are those of all logs, the oldest first.
func (s *Logs) generations() (all []old) {
	for _, l := range s.all() {
		l.mu.Lock()
		for _, g := range l.generations {
			if info, err := os.Stat(l.generation(g)); err == nil {
				all = append(all, old{l, g, info.ModTime()})
			}
		}
		l.mu.Unlock()
	}
	slices.SortStableFunc(all, func(a, b old) int { return a.made.Compare(b.made) })
	return all
}

// remove removes the generation, which is the oldest of its log, and tells how
// much that gave.
func (o old) remove() int64 {
	o.log.mu.Lock()
	defer o.log.mu.Unlock()
	before := o.log.older()
	if i := slices.Index(o.log.generations, o.generation); i >= 0 {
		_ = o.log.forget(len(o.log.generations) - 1 - i) // what can not be removed is tried again
	}
	return before - o.log.older()
}

// cut gives up the head of the log, so that at most so many bytes are left.
func (l *log) cut(most int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refresh(); err != nil || l.info == nil {
		return err
	}
	if l.live() <= most {
		return nil
	}
	if !l.in.rotates {
		return os.Truncate(l.path, 0)
	}
	f, err := os.OpenFile(l.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	block := blockSize(l.info)
	return l.drop(f, (l.size-most)/block*block)
}
