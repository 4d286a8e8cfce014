package lanmanager

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"
)

const (
	quiet     = 100 * time.Millisecond // without an event: editors write in several steps
	impatient = time.Second            // after the first event, however many follow
	retry     = time.Second            // where a directory can not be watched
	round     = 10 * time.Second       // since of network disks and behind links no event comes
)

// watch calls changed when needs, needs.overlay or nat may have changed on the
// disk, and once at the beginning, until ctx ends. It watches the directories,
// since editors put new files in the place of old ones. Where that does not
// work it looks at the files from time to time.
func watch(ctx context.Context, f *files, log hclog.Logger, changed func()) {
	w := &watching{paths: []string{f.needs, f.overlay, f.nat}, log: log, changed: changed}
	system, err := fsnotify.NewWatcher()
	if err != nil {
		w.add = func(string) error { return err }
	} else {
		defer system.Close()
		w.events, w.errors = system.Events, system.Errors
		w.add = func(directory string) error {
			_ = system.Remove(directory) // if it was another of that name
			return system.Add(directory)
		}
	}
	w.run(ctx)
}

// watching is a watch. Its functions and channels are the system's.
type watching struct {
	paths   []string
	log     hclog.Logger
	changed func()

	events <-chan fsnotify.Event
	errors <-chan error
	add    func(directory string) error // events come until it is removed or renamed

	directories map[string]fs.FileInfo // as they were when they were added; nil: that has to be done
	failed      bool                   // to add one the last time
}

func (w *watching) run(ctx context.Context) {
	w.directories = map[string]fs.FileInfo{}
	for _, path := range w.paths {
		w.directories[filepath.Dir(path)] = nil
	}
	look := time.NewTimer(0)
	defer look.Stop()
	settled := time.NewTimer(0) // nothing has happened for a while
	defer settled.Stop()
	settled.Stop()
	var first time.Time // of the events that are settling; zero: there are none
	stir := func() {
		if first.IsZero() {
			first = time.Now()
		}
		settled.Reset(min(quiet, time.Until(first.Add(impatient))))
	}
	seen := stat(w.paths)
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.events:
			if _, ok := w.directories[e.Name]; ok && e.Has(fsnotify.Remove|fsnotify.Rename) {
				w.directories[e.Name] = nil
				look.Reset(retry)
			}
			if slices.Contains(w.paths, e.Name) {
				stir()
			}
		case err := <-w.errors:
			w.log.Warn("changes of the needs may have been missed; the files are read again", "error", err)
			stir()
		case <-look.C:
			added, all := w.rewatch()
			if added || !slices.EqualFunc(seen, stat(w.paths), same) {
				stir()
			}
			look.Reset(round)
			if !all {
				look.Reset(retry)
			}
		case <-settled.C:
			first = time.Time{}
			if _, all := w.rewatch(); !all {
				look.Reset(retry)
			}
			seen = stat(w.paths)
			w.changed()
		}
	}
}

// rewatch adds the directories of which no events come: those that could not be
// added before, and those in the place of which there is another now. It tells
// whether there were some, and whether all are watched now.
func (w *watching) rewatch() (added, all bool) {
	all = true
	for directory, before := range w.directories {
		now, err := os.Stat(directory)
		if err == nil && before != nil && os.SameFile(before, now) {
			continue
		}
		if err == nil {
			err = w.add(directory)
		}
		if err != nil {
			now, all = nil, false
			if !w.failed {
				w.log.Warn("can not watch a directory; its files are looked at every second", "directory", directory, "error", err)
			}
		}
		w.directories[directory] = now
		added = added || err == nil
	}
	w.failed = !all
	return added, all
}

// stat is what there is at the paths; nil where nothing is.
func stat(paths []string) []fs.FileInfo {
	infos := make([]fs.FileInfo, len(paths))
	for i, path := range paths {
		if info, err := os.Stat(path); err == nil {
			infos[i] = info
		}
	}
	return infos
}

// same tells whether a file was not changed between two looks at it.
func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
