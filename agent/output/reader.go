package output

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// ErrBeyond: a position behind the end of a log.
var ErrBeyond = errors.New("the log has not come so far")

// Piece is a part of a log.
type Piece struct {
	Position int64 // of its first byte
	// Missing are the positions between where the piece should have begun and
	// Position: what was there has been forgotten or lost.
	Missing int64
	Data    []byte
}

// Reader reads one log. It belongs to one goroutine, and has nothing open
// between two calls.
type Reader struct {
	logs    *Logs
	path    string
	at      int64
	end     int64 // of the log when the Reader was made
	stopped bool
}

// Stop has the Reader end where the log ended when it was made, be it that
// somebody writes faster than it reads.
func (r *Reader) Stop() { r.stopped = true }

// open has f look at the log of the reader as it is now.
func (r *Reader) open(f func(*log) error) error {
	l, err := r.logs.find(r.path)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refresh(); err != nil {
		return err
	}
	return f(l)
}

// From reads the log at path from a position on. What is older than the oldest
// byte that is kept will be Missing. The error wraps fs.ErrNotExist if there is
// no log, and ErrBeyond.
func (s *Logs) From(path string, position int64) (*Reader, error) {
	r := &Reader{logs: s, path: path, at: position}
	return r, r.open(func(l *log) error {
		r.end = l.end()
		return r.within(l)
	})
}

func (r *Reader) within(l *log) error {
	if r.at > l.end() {
		return fmt.Errorf("%w as position %d: it ends at %d", ErrBeyond, r.at, l.end())
	}
	return nil
}

// Oldest reads the log at path from the oldest byte that is kept. Errors are
// those of From.
func (s *Logs) Oldest(path string) (*Reader, error) {
	r := &Reader{logs: s, path: path}
	return r, r.open(func(l *log) error {
		r.at, r.end = l.oldest(), l.end()
		return nil
	})
}

// Last reads the last lines of the log at path, and what follows. What comes
// behind the last line break is a line, too. Errors are those of From.
func (s *Logs) Last(path string, lines int) (*Reader, error) {
	r := &Reader{logs: s, path: path}
	var oldest int64
	err := r.open(func(l *log) error {
		oldest, r.end = l.oldest(), l.end()
		return nil
	})
	if err == nil {
		r.at, err = r.back(oldest, r.end, lines)
	}
	return r, err
}

// back finds the position at which the last lines before end begin.
func (r *Reader) back(oldest, end int64, lines int) (int64, error) {
	if lines <= 0 {
		return end, nil
	}
	const window = 32 << 10
	buf := make([]byte, window)
	breaks := lines + 1 // the one at the very end counts
	if !r.endsInBreak(end, buf) {
		breaks = lines
	}
	for to := end; to > oldest; to -= window {
		found, err := r.breaks(max(oldest, to-window), to, buf)
		if err != nil {
			return 0, err
		}
		if len(found) >= breaks {
			return found[len(found)-breaks] + 1, nil
		}
		breaks -= len(found)
	}
	return oldest, nil
}

func (r *Reader) endsInBreak(end int64, buf []byte) bool {
	last := Reader{logs: r.logs, path: r.path, at: max(0, end-1)}
	p, err := last.Next(buf[:1])
	return err == nil && len(p.Data) == 1 && p.Data[0] == '\n'
}

// breaks are the positions of the line breaks between two positions.
func (r *Reader) breaks(from, to int64, buf []byte) (found []int64, err error) {
	for at := from; at < to; {
		window := Reader{logs: r.logs, path: r.path, at: at}
		p, err := window.Next(buf[:min(int64(len(buf)), to-at)])
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		for i, c := range p.Data {
			if c == '\n' && p.Position+int64(i) < to {
				found = append(found, p.Position+int64(i))
			}
		}
		at = window.at
	}
	return found, nil
}

// Position is that of the byte that the next piece should begin with.
func (r *Reader) Position() int64 { return r.at }

// Next reads what comes next into buf. At the end of the log the error is io.EOF;
// later there may be more. A piece without data tells of what is missing at the
// end.
func (r *Reader) Next(buf []byte) (p Piece, err error) {
	err = r.open(func(l *log) error {
		if err := r.within(l); err != nil {
			return err
		}
		if r.stopped {
			if r.at >= r.end {
				return io.EOF
			}
			buf = buf[:min(int64(len(buf)), r.end-r.at)]
		}
		p.Position = r.at
		n, err := l.read(&p.Position, buf)
		if err != nil && err != io.EOF {
			return err
		}
		p.Data, p.Missing = buf[:n], p.Position-r.at
		r.at = p.Position + int64(n)
		if n == 0 && p.Missing == 0 {
			return io.EOF
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = io.EOF // removed; there may be another one later
	}
	return p, err
}

// read reads what is at a position, or at the next one of which there is
// anything.
func (l *log) read(at *int64, buf []byte) (int, error) {
	for *at < l.start() {
		i := slices.IndexFunc(l.generations, func(g generation) bool { return g.to > *at })
		if i < 0 || l.generations[i].from >= l.start() {
			break
		}
		g := l.generations[i]
		*at = max(*at, g.from)
		n, err := readAt(l.generation(g), buf[:min(int64(len(buf)), g.to-*at)], *at-g.from)
		if n > 0 || err != nil {
			return n, err
		}
		*at = g.to // it is shorter than it should be, or gone
	}
	*at = max(*at, l.start())
	if l.info == nil || *at >= l.end() {
		return 0, io.EOF
	}
	f, err := os.Open(l.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	offset, err := data(f, *at-l.base)
	if err != nil {
		return 0, err
	}
	*at = min(l.base+offset, l.end())
	n, err := f.ReadAt(buf[:min(int64(len(buf)), l.end()-*at)], *at-l.base)
	if n > 0 {
		err = nil
	}
	return n, err
}

// readAt reads a part of a file; nothing where there is none.
func readAt(path string, buf []byte, offset int64) (int, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := f.ReadAt(buf, offset)
	if n > 0 || err == io.EOF {
		err = nil
	}
	return n, err
}
