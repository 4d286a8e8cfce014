package output

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/allexgo/machine-agent/internal/fault"
)

const (
	logSuffix  = ".log"
	partSuffix = ".part"
	baseSuffix = ".base"
)

// generation is a file with the bytes of a log from one position up to another.
// After a loss of power it may be shorter.
type generation struct{ from, to int64 }

// generation is the path of one; by name they are in order.
func (l *log) generation(g generation) string {
	return fmt.Sprintf("%s.%019d-%019d", l.path, g.from, g.to)
}

var generationName = regexp.MustCompile(`^(.*\.log)\.(\d{19})-(\d{19})$`)

// parseGeneration is the inverse of log.generation.
func parseGeneration(path string) (log string, g generation, ok bool) {
	m := generationName.FindStringSubmatch(path)
	if m == nil {
		return "", g, false
	}
	var err1, err2 error
	g.from, err1 = strconv.ParseInt(m[2], 10, 64)
	g.to, err2 = strconv.ParseInt(m[3], 10, 64)
	return m[1], g, err1 == nil && err2 == nil && g.from < g.to
}

// scan finds the files of the directory, and removes what an agent has left half
// done.
func (s *Logs) scan() error {
	entries, err := os.ReadDir(s.Directory)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(s.Directory, entry.Name())
		if of, g, ok := parseGeneration(path); ok {
			l := s.get(of)
			l.generations = append(l.generations, g)
		} else if of, ok := strings.CutSuffix(path, baseSuffix); ok {
			s.get(of).based = true
		} else if strings.HasSuffix(path, logSuffix) {
			s.get(path)
		} else if strings.HasSuffix(path, logSuffix+partSuffix) || strings.HasSuffix(path, ".tmp") {
			os.Remove(path)
		}
	}
	for _, l := range s.logs {
		slices.SortFunc(l.generations, func(a, b generation) int { return cmp.Compare(a.from, b.from) })
	}
	return nil
}

// rotation turns the head of a log into a generation, in steps. An agent that is
// killed between any two of them has lost nothing, and the next one repeats at
// most the third.
type rotation struct {
	log        *log
	file       *os.File
	generation generation
	keep       int
}

func (r *rotation) steps() []func() error {
	return []func() error{r.copy, r.name, r.release, r.forget}
}

func (r *rotation) run() error {
	for _, step := range r.steps() {
		if err := step(); err != nil {
			os.Remove(r.log.path + partSuffix)
			return err
		}
	}
	return nil
}

func (r *rotation) copy() error {
	part, err := os.OpenFile(r.log.path+partSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	if _, err = r.file.Seek(r.generation.from-r.log.base, io.SeekStart); err == nil {
		_, err = io.CopyN(part, r.file, r.generation.to-r.generation.from)
	}
	if err == io.EOF {
		err = fmt.Errorf("%s was emptied while its head was copied: %w", r.log.path, fs.ErrNotExist)
	}
	return errors.Join(err, part.Close(), fault.At(fault.LogCopied))
}

func (r *rotation) name() error {
	err := os.Rename(r.log.path+partSuffix, r.log.generation(r.generation))
	if err == nil && !slices.Contains(r.log.generations, r.generation) { // else it could not be released the last time
		r.log.generations = append(r.log.generations, r.generation)
	}
	return errors.Join(err, fault.At(fault.LogNamed))
}

func (r *rotation) release() error {
	return r.log.drop(r.file, r.generation.to-r.log.base)
}

func (r *rotation) forget() error { return r.log.forget(r.keep) }

// forget removes all but the youngest generations.
func (l *log) forget(keep int) error {
	for len(l.generations) > keep {
		if err := os.Remove(l.generation(l.generations[0])); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		l.generations = l.generations[1:]
	}
	return nil
}
