package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

const kib = 1 << 10

// open makes the Logs of a directory, as an agent does that starts.
func open(t *testing.T, dir string) *Logs {
	t.Helper()
	s := New(Config{Directory: dir, Logger: hclog.NewNullLogger()})
	if len(s.Warnings) > 0 {
		t.Fatal(s.Warnings)
	}
	return s
}

// appended opens the log of a directory as its process has it.
func appended(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func say(t *testing.T, f *os.File, text string) {
	t.Helper()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// numbered is n lines of 64 bytes.
func numbered(from, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%063d\n", from+i)
	}
	return b.String()
}

func keep(t *testing.T, l *log, limit Limit) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.keep(limit); err != nil {
		t.Fatal(err)
	}
}

// rest reads what there is, and how much of it is missing.
func rest(t *testing.T, r *Reader) (text []byte, missing int64) {
	t.Helper()
	buf := make([]byte, 10*kib+7)
	for {
		p, err := r.Next(buf)
		if err == io.EOF {
			return text, missing
		}
		if err != nil {
			t.Fatal(err)
		}
		text, missing = append(text, p.Data...), missing+p.Missing
	}
}

func from(t *testing.T, s *Logs, path string, position int64) *Reader {
	t.Helper()
	r, err := s.From(path, position)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sequence checks that lines of several writers come once each and in order.
type sequence struct {
	next map[string]int
	rest []byte
}

func (s *sequence) add(t *testing.T, text []byte) {
	t.Helper()
	s.rest = append(s.rest, text...)
	for {
		line, rest, complete := bytes.Cut(s.rest, []byte("\n"))
		if !complete {
			return
		}
		s.rest = rest
		name, number, _ := strings.Cut(string(line), " ")
		n, err := strconv.Atoi(number)
		if err != nil || n != s.next[name] {
			t.Fatalf("line %q comes where line %d of %s should be", line, s.next[name], name)
		}
		s.next[name]++
	}
}

// directories are on the disk and in memory.
func directories(t *testing.T) map[string]string {
	dirs := map[string]string{"disk": t.TempDir()}
	var fs unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &fs); err == nil && fs.Type == unix.TMPFS_MAGIC {
		dir, err := os.MkdirTemp("/dev/shm", "output")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		dirs["memory"] = dir
	}
	return dirs
}

// Two processes write as fast as they can while their log is rotated all the
// time and somebody follows it: nobody misses a line, nor sees one twice.
func TestWriters(t *testing.T) {
	const lines = 200_000
	for kind, dir := range directories(t) {
		t.Run(kind, func(t *testing.T) {
			path := filepath.Join(dir, "a.log")
			appended(t, path)
			s := open(t, dir)
			done := make(chan error, 2)
			for _, name := range []string{"one", "other"} {
				writer := play(t, "write", path, name, strconv.Itoa(lines))
				go func() { done <- writer.Run() }()
			}
			l, follower := s.get(path), from(t, s, path, 0)
			seen := sequence{next: map[string]int{}}
			for running := 2; running > 0; {
				select {
				case err := <-done:
					if err != nil {
						t.Fatal(err)
					}
					running--
				default:
				}
				keep(t, l, Limit{MaxSize: 64 * kib, Keep: 1000})
				text, missing := rest(t, follower)
				if missing > 0 {
					t.Fatalf("the follower misses %d bytes", missing)
				}
				seen.add(t, text)
			}
			keep(t, l, Limit{MaxSize: 64 * kib, Keep: 1000})
			if len(l.generations) < 20 {
				t.Errorf("there are only %d generations", len(l.generations))
			}
			text, _ := rest(t, follower)
			seen.add(t, text)
			again := sequence{next: map[string]int{}}
			text, missing := rest(t, from(t, open(t, dir), path, 0))
			again.add(t, text)
			for _, name := range []string{"one", "other"} {
				if seen.next[name] != lines || again.next[name] != lines || missing != 0 {
					t.Errorf("%s: followed %d lines, read %d afterwards, want %d", name, seen.next[name], again.next[name], lines)
				}
			}
			if used := s.get(path).used(); used > int64(len(text))+200*kib {
				t.Errorf("%d bytes take %d of the disk", len(text), used)
			}
		})
	}
}

// An agent is killed after each step of a rotation, and the process writes on.
func TestKilledRotation(t *testing.T) {
	const lines = 8 * kib // 512 KiB
	for kind, dir := range directories(t) {
		for steps := range 5 {
			t.Run(fmt.Sprintf("%s after %d steps", kind, steps), func(t *testing.T) {
				path := filepath.Join(dir, fmt.Sprintf("%d.log", steps))
				process := appended(t, path)
				say(t, process, numbered(0, lines))
				for range 3 { // also one killed rotation after the other
					var killed interface{ Sys() any }
					agent := play(t, "rotate", path, strconv.Itoa(steps))
					err := agent.Run()
					if killed = agent.ProcessState; killed.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
						t.Fatalf("the rotation failed: %v", err)
					}
				}
				say(t, process, numbered(lines, 1))
				s := open(t, dir)
				if text, missing := rest(t, from(t, s, path, 0)); missing != 0 || string(text) != numbered(0, lines+1) {
					t.Errorf("read %d bytes, %d are missing, want %d", len(text), missing, 64*(lines+1))
				}
				if want := int64(64<<10) * map[int]int64{0: 0, 1: 0, 2: 3, 3: 3, 4: 3}[steps]; s.get(path).start() != want {
					t.Errorf("the head is at %d, want %d", s.get(path).start(), want)
				}
				if _, err := os.Stat(path + partSuffix); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("half a generation is left: %v", err)
				}
			})
		}
	}
}

// What somebody else does to the file. Nothing that is still there is lost, what
// is lost is told, and no position is used twice.
func TestBegunAnew(t *testing.T) {
	limit := Limit{MaxSize: 64 * kib, Keep: 100}
	const before = 4 * kib // lines, 256 KiB
	for what, c := range map[string]struct {
		do      func(t *testing.T, path string, process *os.File)
		missing int64 // at least
	}{
		"emptied by its process": {do: func(t *testing.T, path string, _ *os.File) {
			say(t, truncated(t, path), numbered(before, 10))
		}, missing: 1},
		"emptied and longer than before": {do: func(t *testing.T, path string, process *os.File) {
			f := truncated(t, path)
			say(t, f, numbered(before, 2*before))
		}, missing: 1},
		"emptied by an operator": {do: func(t *testing.T, path string, process *os.File) {
			truncated(t, path)
			say(t, process, numbered(before, 10))
		}, missing: 1},
		"emptied under a writer that keeps its own offset": {do: func(t *testing.T, path string, _ *os.File) {
			f := truncated(t, path)
			say(t, f, numbered(0, before))
			truncated(t, path)
			say(t, f, numbered(before, 10))
		}}, // just what was written and emptied between two looks
		"removed, and made by the next process": {do: func(t *testing.T, path string, _ *os.File) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			say(t, appended(t, path), numbered(before, 10))
		}, missing: 1},
	} {
		for _, watched := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, watched %v", what, watched), func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "a.log")
				process := appended(t, path)
				s := open(t, dir)
				say(t, process, numbered(0, before))
				keep(t, s.get(path), limit)
				follower := from(t, s, path, 0)
				if text, _ := rest(t, follower); string(text) != numbered(0, before) {
					t.Fatalf("read %d bytes before", len(text))
				}
				at := follower.at
				c.do(t, path, process)
				if !watched { // the next agent finds out
					s = open(t, dir)
					follower = from(t, s, path, at-1)
				}
				for range 3 {
					keep(t, s.get(path), limit)
				}
				text, missing := rest(t, follower)
				if !bytes.HasPrefix(bytes.TrimPrefix(text, []byte("\n")), []byte(numbered(before, 10))) || missing < c.missing {
					t.Errorf("read %.200q..., %d are missing", text, missing)
				}
				if follower.at <= at {
					t.Errorf("position %d comes after %d", follower.at, at)
				}
				all, _ := rest(t, from(t, open(t, dir), path, 0))
				if !bytes.HasPrefix(all, []byte(numbered(0, before-limit.lines()))) {
					t.Errorf("the generations are lost: %.100q", all)
				}
			})
		}
	}
}

// lines is how many of numbered may not have been rotated.
func (l Limit) lines() int { return int(l.MaxSize / 64) }

// truncated is what `>/dev/stdout` does.
func truncated(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// However much is written between two looks, only so much is kept, and a reader
// is told what it can not have any more.
func TestLimit(t *testing.T) {
	for _, keeping := range []int{0, 1, 4} {
		dir := t.TempDir()
		path := filepath.Join(dir, "a.log")
		process := appended(t, path)
		s := open(t, dir)
		limit := Limit{MaxSize: 64 * kib, Keep: keeping}
		written := 0
		for _, lines := range []int{100, 5 * kib, 1, 20 * kib, 3} {
			say(t, process, numbered(written, lines))
			written += lines
			keep(t, s.get(path), limit)
			most := limit.MaxSize*int64(keeping+1) + 8*kib // a block more, and what the file system needs
			if used := s.get(path).used(); used > most {
				t.Errorf("keep %d: %d bytes are used, more than %d", keeping, used, most)
			}
			text, missing := rest(t, from(t, s, path, 0))
			if int(missing)+len(text) != 64*written || !strings.HasSuffix(numbered(0, written), string(text)) {
				t.Errorf("keep %d: of %d bytes %d were read and %d are missing", keeping, 64*written, len(text), missing)
			}
		}
		if len(s.get(path).generations) != keeping {
			t.Errorf("keep %d: there are %d generations", keeping, len(s.get(path).generations))
		}
	}
}

// A file system that can not release the head of a file.
func TestNoHoles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	process := appended(t, path)
	s := open(t, dir)
	s.rotates = false
	limit := Limit{MaxSize: 64 * kib, Keep: 1}
	say(t, process, numbered(0, 2*kib)) // just what is kept
	keep(t, s.get(path), limit)
	follower := from(t, s, path, 0)
	if text, _ := rest(t, follower); string(text) != numbered(0, 2*kib) {
		t.Errorf("of what may stay only %d bytes are there", len(text))
	}
	at := follower.at
	say(t, process, "one line too much\n")
	keep(t, s.get(path), limit)
	say(t, process, "the next line\n")
	text, missing := rest(t, follower)
	if string(text) != "the next line\n" || missing == 0 || follower.at <= at {
		t.Errorf("read %q at %d, %d are missing", text, follower.at, missing)
	}
}

func TestFullDisk(t *testing.T) {
	child := play(t, "full", t.TempDir())
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := child.Run(); err != nil {
		t.Error(err)
	}
}

func TestBaseIsRubbish(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	process := appended(t, path)
	s := open(t, dir)
	say(t, process, numbered(0, 4*kib))
	keep(t, s.get(path), Limit{MaxSize: 64 * kib, Keep: 9})
	say(t, truncated(t, path), "anew\n")
	keep(t, s.get(path), Limit{MaxSize: 64 * kib, Keep: 9})
	end := s.get(path).end()
	if err := os.WriteFile(path+baseSuffix, []byte("\x00\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := from(t, open(t, dir), path, 0)
	text, _ := rest(t, r)
	if !bytes.HasSuffix(text, []byte("anew\n")) || !bytes.HasPrefix(text, []byte(numbered(0, 3*kib))) {
		t.Errorf("read %d bytes", len(text))
	}
	if r.at < end {
		t.Errorf("ends at %d, was %d: positions are used again", r.at, end)
	}
}

func TestTotal(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.MaxTotal = 600 * kib
	limit := Limit{MaxSize: 64 * kib, Keep: 9}
	write := func(name string, age time.Duration, used bool) *log {
		path := filepath.Join(dir, name)
		say(t, appended(t, path), numbered(0, 6*kib)) // 384 KiB
		if used {
			s.Use(path, limit)
		}
		l := s.get(path)
		keep(t, l, limit)
		for _, g := range l.generations {
			at := time.Now().Add(-age)
			if err := os.Chtimes(l.generation(g), at, at); err != nil {
				t.Fatal(err)
			}
		}
		return l
	}
	unused, old, young := write("unused.log", 0, false), write("old.log", time.Hour, true), write("young.log", time.Minute, true)
	s.reclaim()
	if _, err := os.Stat(unused.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the log without a process is still there: %v", err)
	}
	if len(old.generations) >= 5 || len(young.generations) != 5 {
		t.Errorf("left are %d old and %d young generations", len(old.generations), len(young.generations))
	}
	if sum := old.used() + young.used(); sum > s.MaxTotal {
		t.Errorf("%d bytes are used", sum)
	}
	text, missing := rest(t, from(t, s, old.path, 0))
	if int(missing)+len(text) != 64*6*kib || !strings.HasSuffix(numbered(0, 6*kib), string(text)) {
		t.Errorf("read %d bytes, %d are missing", len(text), missing)
	}
	s.MaxTotal = 64 * kib
	s.reclaim()
	if sum := old.used() + young.used(); sum > s.MaxTotal+16*kib {
		t.Errorf("%d bytes are used with nothing but live parts", sum)
	}
}

// Run does what the calls of the tests before do, and looks once more at the log
// of a process that has ended.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	path, older := filepath.Join(dir, "a.log"), filepath.Join(dir, "older.log")
	for _, name := range []string{path, older} {
		say(t, appended(t, name), numbered(0, 4*kib))
	}
	long := time.Now().Add(-2 * keptFor)
	if err := os.Chtimes(older, long, long); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	s.Use(path, Limit{MaxSize: 64 * kib, Keep: 2})()
	now := time.Now()
	if next := s.round(now); next != tick {
		t.Errorf("with nobody to watch the next look is in %s", next)
	}
	if n := len(s.get(path).generations); n != 2 {
		t.Errorf("there are %d generations", n)
	}
	if _, err := os.Stat(older); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a log that is long gone is still there: %v", err)
	}
	if len(s.due(now.Add(time.Hour), false)) != 0 {
		t.Error("a log without a process is looked at")
	}
}

func TestPace(t *testing.T) {
	for what, c := range map[string]struct {
		last, since time.Duration
		grown, room int64
		want        time.Duration
	}{
		"silent":         {time.Second, time.Second, 0, 1000, 8 * time.Second},
		"long silent":    {slowest, slowest, 0, 1000, slowest},
		"slow":           {time.Second, 8 * time.Second, 8, 1000, 8 * time.Second},
		"will be full":   {8 * time.Second, 8 * time.Second, 800, 1000, 5 * time.Second},
		"flood":          {time.Second, time.Second, 1 << 40, 1000, quickest},
		"over its limit": {time.Second, time.Second, 10, -5, quickest},
	} {
		if got := pace(c.last, c.since, slowest, c.grown, c.room); got != c.want {
			t.Errorf("%s: got %s, want %s", what, got, c.want)
		}
	}
}

func TestLast(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	process := appended(t, path)
	s := open(t, dir)
	say(t, process, numbered(0, 4*kib))
	keep(t, s.get(path), Limit{MaxSize: 64 * kib, Keep: 2})
	for _, last := range []string{"", "half a line"} {
		say(t, process, last)
		kept := 3*kib + 1 // more than three pieces of the limit, less what was forgotten
		for _, lines := range []int{0, 1, 2, 700, 2000, 100 * kib} {
			r, err := s.Last(path, lines)
			if err != nil {
				t.Fatal(err)
			}
			text, missing := rest(t, r)
			want := numbered(4*kib-min(lines, kept), min(lines, kept))
			if last != "" && lines > 0 {
				want = numbered(4*kib-min(lines-1, kept), min(lines-1, kept)) + last
			}
			if lines > kept {
				if len(text) < 64*2*kib || !strings.HasSuffix(want, string(text)) {
					t.Errorf("all lines: %d bytes", len(text))
				}
			} else if string(text) != want {
				t.Errorf("the last %d lines: got %d bytes, want %d: %.80q", lines, len(text), len(want), text)
			}
			if missing != 0 {
				t.Errorf("%d are missing", missing)
			}
		}
	}
	r := from(t, s, path, s.get(path).end()-10)
	r.Stop()
	say(t, process, "and more")
	if text, missing := rest(t, r); len(text) != 10 || missing != 0 {
		t.Errorf("who stops reads %q", text)
	}
	empty := filepath.Join(dir, "empty.log")
	appended(t, empty)
	if r, err := s.Last(empty, 5); err != nil || r.at != 0 {
		t.Errorf("an empty log: %v %v", r, err)
	}
}

func TestNoSuchPlace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.log")
	s := open(t, dir)
	if _, err := s.From(path, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is no log: %v", err)
	}
	say(t, appended(t, path), "x\n")
	if _, err := s.From(path, 3); !errors.Is(err, ErrBeyond) || !strings.Contains(err.Error(), "ends at 2") {
		t.Errorf("behind the end: %v", err)
	}
}

func TestGenerationName(t *testing.T) {
	l := &log{path: "/x/a%2F.log"}
	for _, g := range []generation{{0, 1}, {4096, 1 << 62}} {
		if path, got, ok := parseGeneration(l.generation(g)); path != l.path || got != g || !ok {
			t.Errorf("%v became %s %v", g, path, got)
		}
	}
	for _, name := range []string{
		"a.log", "a.log.base", "a.log.1-2", "a.log.0000000000000000000-0000000000000000000.log",
		"a.log.0000000000000000002-0000000000000000001", "a.log.9999999999999999999-9999999999999999999",
	} {
		if _, g, ok := parseGeneration(name); ok {
			t.Errorf("%s is no generation, got %v", name, g)
		}
	}
}
