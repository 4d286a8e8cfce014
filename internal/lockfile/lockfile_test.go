package lockfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// One at a time has the lock, and who has it is told, by its number or by nothing.
func TestTake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(pid int, want string) {
		t.Helper()
		_, err := Take(path)
		if held, ok := errors.AsType[*HeldError](err); !ok || held.Path != path || held.PID != pid || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	refused(os.Getpid(), fmt.Sprintf("process %d has %s", os.Getpid(), path))
	if err := first.Truncate(0); err != nil {
		t.Fatal(err)
	}
	refused(0, "another process has "+path)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := Take(path)
	if err != nil {
		t.Fatalf("it is free: %v", err)
	}
	next.Close()
}

// A place where there can be no file is no lock of somebody.
func TestTakeNowhere(t *testing.T) {
	_, err := Take(filepath.Join(t.TempDir(), "missing", "lock"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
