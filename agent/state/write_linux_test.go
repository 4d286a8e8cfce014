package state

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// full has a file be on a full disk until it is removed.
func full(t *testing.T, path string) {
	t.Helper()
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
}

// refused makes sure that an error is that of a full disk.
func refused(t *testing.T, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "no space left on device; make room on its file system") {
		t.Errorf("got %v", err)
	}
}

// What the disk refuses is told, and written as soon as it takes it: the last of
// each file.
func TestRefusedIsOwed(t *testing.T) {
	s := openStore(t, t.TempDir())
	one, two := golden()[1], golden()[1]
	one.Identity.BootID, two.Identity.BootID = s.boot, s.boot
	two.Instance = "two"
	for _, r := range []Record{one, two} {
		full(t, s.recordPath(r.Instance))
		refused(t, s.Put(r))
	}
	if w := s.Warning(); !strings.HasPrefix(w, "files of the state directory that could not be written and are tried again: 2, the first one: ") {
		t.Errorf("the warning is %q", w)
	}
	one.Ready = !one.Ready
	if err := s.Put(one); err != nil {
		t.Fatal(err)
	}
	s.Settle()
	if diff := cmp.Diff([]Record{one, two}, loadAll(t, s)); diff != "" {
		t.Error(diff)
	}
	if w := s.Warning(); w != "" {
		t.Errorf("nothing is owed, and the warning is %q", w)
	}
}

// What was refused before it was acted upon has come to nothing.
func TestRefusedIntentIsNotOwed(t *testing.T) {
	s := openStore(t, t.TempDir())
	intent := Record{Instance: "intent", Phase: Starting}
	full(t, s.recordPath(intent.Instance))
	refused(t, s.Put(intent))
	s.Settle()
	if entries, err := os.ReadDir(filepath.Join(s.dir, "run")); len(entries) != 0 || err != nil {
		t.Errorf("%v, %v", entries, err)
	}
}

// Run tries again by itself.
func TestRun(t *testing.T) {
	s := openStore(t, t.TempDir())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	r := golden()[1]
	full(t, s.recordPath(r.Instance))
	refused(t, s.Put(r))
	for deadline := time.Now().Add(10 * time.Second); s.Warning() != ""; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(s.Warning())
		}
	}
	stop()
	<-ended
}

// Who waits for the disk is told of, and that it is over.
func TestStuck(t *testing.T) {
	s := openStore(t, t.TempDir())
	told := make(chan int, 2)
	s.OnStuck(func(more int) { told <- more })
	began := time.Now()
	err := s.write("f", false, func() error {
		if more := <-told; more != 1 || time.Since(began) < StuckAfter {
			t.Errorf("told %d after %s", more, time.Since(began))
		}
		return nil
	})
	if more := <-told; more != -1 || err != nil {
		t.Errorf("told %d, %v", more, err)
	}
}
