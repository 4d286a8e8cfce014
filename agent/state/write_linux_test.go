package state

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

// Who waits for the disk is told of, and that it is over: a record soon, and what
// is synced when no disk takes so long.
func TestStuck(t *testing.T) {
	for name, test := range map[string]struct {
		lane  func(*Store) lane
		takes time.Duration
		told  []int
	}{
		"a record":          {func(s *Store) lane { return s.records }, 3 * time.Second, []int{1, -1}},
		"a quick record":    {func(s *Store) lane { return s.records }, time.Second, nil},
		"a slow sync":       {func(s *Store) lane { return s.kept }, 10 * time.Second, nil},
		"a sync that hangs": {func(s *Store) lane { return s.kept }, time.Minute, []int{1, -1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, t.TempDir())
				began := time.Now()
				told := make(chan int, 2)
				s.OnStuck(func(more int, since time.Time) {
					told <- more
					if !since.Equal(began) {
						t.Errorf("told %d since %s, and it began at %s", more, since, began)
					}
				})
				if err := s.write(test.lane(s), "f", false, takes(test.takes)); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				close(told)
				var all []int
				for more := range told {
					all = append(all, more)
				}
				if diff := cmp.Diff(test.told, all); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// takes is a write that takes its time.
func takes(d time.Duration) func() error {
	return func() error {
		time.Sleep(d)
		return nil
	}
}

// However many syncs there are, and be what is owed among it, no record waits for
// them.
func TestRecordsDoNotWaitForSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir())
		full(t, s.recordPath("one"))
		one := golden()[1]
		one.Instance = "one"
		refused(t, s.Put(one))
		var writers sync.WaitGroup
		for range 2 * writesAtOnce {
			writers.Go(func() { _ = s.write(s.kept, "f", false, takes(time.Second)) })
		}
		synctest.Wait()
		writers.Go(s.Settle)
		synctest.Wait()
		began := time.Now()
		if err := s.write(s.records, "g", false, takes(0)); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		writers.Wait()
		if took := time.Since(began); took != 2*writesAtOnce*time.Second {
			t.Errorf("the syncs took %s", took)
		}
		if w := s.Warning(); w != "" {
			t.Errorf("nothing is owed, and the warning is %q", w)
		}
	})
}
