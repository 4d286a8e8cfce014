package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/agent/output"
)

// A log that nobody has written for days goes. Who follows it is told so when a new one
// has begun, of which his position is none.
func TestFollowerOfALogThatWent(t *testing.T) {
	l := loopWithStore(t)
	a := l.Agent
	path := a.Store.LogPath("X")
	write := func(text string, written time.Time) {
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, written, written)); err != nil {
			t.Fatal(err)
		}
	}
	write("a line that somebody has read\n", time.Now().Add(-30*24*time.Hour))
	a.logs = output.New(output.Config{Directory: filepath.Dir(path), Logger: a.Logger})
	go func() { (<-l.inbox)(l) }()
	err := a.TailLogs(t.Context(), Tail{Instance: "X", Follow: true}, func(p LogPiece) error {
		if len(p.Data) == 0 {
			return nil
		}
		keeping, stop := context.WithCancel(t.Context())
		var keeper sync.WaitGroup
		defer keeper.Wait()
		defer stop()
		keeper.Go(func() { a.logs.Run(keeping) })
		for look := time.Tick(time.Millisecond); ; <-look {
			if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
				write("new\n", time.Now())
				return nil
			}
		}
	})
	if e, ok := errors.AsType[*Error](err); !ok || e.Kind != NotFound || e.Metadata["instance"] != "X" {
		t.Errorf("it ended with %v", err)
	}
}
