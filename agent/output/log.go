package output

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// log is one log. What lies before head in its file has been released.
type log struct {
	path string
	in   *Logs

	// Guarded by Logs.mu.
	users int
	limit Limit
	seen  time.Time     // when Run looked at it
	pace  time.Duration // until it looks again

	mu          sync.Mutex // held while the files are read or changed
	loaded      bool
	based       bool        // there is a file for base
	told        bool        // that somebody empties the file
	info        os.FileInfo // of the file as it was seen last; nil: there was none
	size, head  int64       // offsets in the file
	base        int64       // position of offset 0
	generations []generation
}

// watched tells whether Run looks at the log. The caller holds Logs.mu.
func (l *log) watched() bool { return l.users > 0 || l.seen.IsZero() && l.limit.MaxSize > 0 }

func (l *log) start() int64 { return l.base + l.head }
func (l *log) end() int64   { return l.base + l.size }
func (l *log) live() int64  { return l.size - l.head }

// oldest is the position of the first byte that is still there.
func (l *log) oldest() int64 {
	if len(l.generations) > 0 {
		return l.generations[0].from
	}
	return l.start()
}

// refresh looks at the file, and finds out whether it was begun anew.
func (l *log) refresh() error {
	info, err := os.Stat(l.path)
	size := int64(0)
	switch {
	case err == nil:
		size = info.Size()
	case errors.Is(err, fs.ErrNotExist):
		info = nil
	default:
		return err
	}
	if !l.loaded {
		err := l.load(info, size)
		l.loaded = err == nil
		return err
	}
	anew := size < l.size || info != nil && l.info != nil && !os.SameFile(info, l.info)
	if !anew && l.head > 0 && size > l.size {
		if anew, err = l.overwritten(); err != nil {
			return err
		}
	}
	end := l.end()
	l.info, l.size = info, size
	if anew {
		if !l.told {
			l.told = true
			l.in.Logger.Warn("a log was emptied by its own process or by somebody else; what it held is lost, but for its generations", "file", l.path)
		}
		return l.begin(end)
	}
	return l.save()
}

// overwritten tells whether there is text where the head was released: the file
// was emptied and has grown beyond its old size since.
func (l *log) overwritten() (bool, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	at, err := data(f, 0)
	if err != nil || at >= l.head {
		return false, err
	}
	text := make([]byte, min(4<<10, l.head-at))
	n, err := f.ReadAt(text, at)
	if err != nil && err != io.EOF {
		return false, err
	}
	return len(bytes.Trim(text[:n], "\x00")) > 0, nil
}

// begin gives what is in the file positions behind end, and behind one that stands
// for whatever was lost.
func (l *log) begin(end int64) error {
	l.base, l.head, l.based = end+1, 0, false
	if l.info == nil {
		return nil
	}
	return errors.Join(l.skipHole(), l.save())
}

// save writes the base of a file that there is.
func (l *log) save() error {
	if l.info == nil || l.base == 0 || l.based {
		return nil
	}
	err := jsonfile.Write(l.path+baseSuffix, strconv.AppendInt(nil, l.base, 10), false)
	l.based = err == nil
	return err
}

// skipHole moves head to the first data of the file.
func (l *log) skipHole() error {
	f, err := os.Open(l.path)
	if err != nil {
		return err
	}
	defer f.Close()
	at, err := data(f, l.head)
	l.head = min(at, l.size)
	return err
}

// unseen is more than an agent before this one can have shown of a file behind
// its last generation: those positions are not used again.
const unseen = 1 << 32

// load finds out where the agent before this one had come to.
func (l *log) load(info os.FileInfo, size int64) error {
	if l.based {
		text, err := os.ReadFile(l.path + baseSuffix)
		if err != nil {
			return err
		}
		l.base, _ = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // else what follows finds out
	}
	l.info, l.size = info, size
	if len(l.generations) == 0 || l.generations[len(l.generations)-1].to <= l.base {
		if info == nil {
			return nil
		}
		return l.skipHole()
	}
	last := l.generations[len(l.generations)-1]
	copied := last.to - l.base
	if size < copied {
		return l.begin(last.to + unseen)
	}
	f, err := os.OpenFile(l.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	at, err := data(f, 0)
	if err != nil {
		return err
	}
	if at >= copied {
		l.head = min(at, size)
		return nil
	}
	// Either the agent was killed before it had released what it had copied, or
	// the file was begun anew while there was no agent.
	if !l.same(f, last, at) {
		return l.begin(last.to + unseen)
	}
	if err := release(f, copied); err != nil {
		return err
	}
	l.head = copied
	return nil
}

// same tells whether the generation holds what is in the file from offset at up
// to its end.
func (l *log) same(f *os.File, g generation, at int64) bool {
	skip := at - (g.from - l.base)
	if skip < 0 {
		return false
	}
	copied, err := os.Open(l.generation(g))
	if err != nil {
		return false
	}
	defer copied.Close()
	one, other := make([]byte, 64<<10), make([]byte, 64<<10)
	for skip < g.to-g.from {
		n := int(min(int64(len(one)), g.to-g.from-skip))
		if _, err := copied.ReadAt(one[:n], skip); err != nil && err != io.EOF {
			return false
		}
		if _, err := f.ReadAt(other[:n], g.from-l.base+skip); err != nil && err != io.EOF {
			return false
		}
		if !bytes.Equal(one[:n], other[:n]) {
			return false
		}
		skip += int64(n)
	}
	return true
}

// keep brings the log within its limit and tells how much it had grown.
func (l *log) keep(limit Limit) (grown int64, err error) {
	before := l.end()
	if err := l.refresh(); err != nil {
		return 0, err
	}
	grown = l.end() - before
	switch {
	case l.live() <= limit.MaxSize:
		return grown, l.forget(limit.Keep)
	case l.in.rotates:
		return grown, l.trim(limit)
	case l.live() > limit.MaxSize*int64(limit.Keep+1):
		l.in.Logger.Warn("a log has reached its limit and is emptied", "file", l.path, "bytes", l.size)
		return grown, l.empty()
	}
	return grown, nil
}

// empty is for file systems that can not release a head.
func (l *log) empty() error {
	if err := os.Truncate(l.path, 0); err != nil {
		return err
	}
	end := l.end()
	l.size = 0
	return l.begin(end)
}

// trim moves the head of the file, piece by piece, into generations.
func (l *log) trim(limit Limit) error {
	f, err := os.OpenFile(l.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := l.skipHole(); err != nil {
		return err
	}
	block := blockSize(l.info)
	piece := max(block, limit.MaxSize/block*block)
	// What would be forgotten again at once is not copied at all.
	if most := piece * int64(limit.Keep+1); l.live() > most {
		if err := l.drop(f, (l.size-most+block-1)/block*block); err != nil {
			return err
		}
	}
	for l.live() > piece {
		from := l.start()
		r := rotation{log: l, file: f, generation: generation{from, from + piece}, keep: limit.Keep}
		err := r.run()
		if diskFull(err) {
			// A full disk needs the room more than anybody the oldest lines.
			l.in.Logger.Warn("the disk is full; the oldest part of a log is given up", "file", l.path)
			if n := len(l.generations); n > 0 {
				err = l.forget(n - 1)
			} else {
				err = l.drop(f, l.head+piece)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// diskFull tells whether an error is that a disk, or somebody's part of it, is full.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// drop releases what lies before offset to. What has not been copied is gone.
func (l *log) drop(f *os.File, to int64) error {
	if info, err := f.Stat(); err != nil || info.Size() < to {
		return err // emptied a moment ago: what is there now is new
	}
	if err := release(f, to); err != nil {
		return err
	}
	l.head = max(l.head, to)
	return nil
}
