package agent

import (
	"context"
	"errors"
	"testing"
)

// One looks at a time, and who does not want to wait any more leaves.
func TestTurn(t *testing.T) {
	a := &Agent{looking: make(chan struct{}, 1)}
	done, err := a.turn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.turn(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("beside somebody else: %v", err)
	}
	done()
	if _, err := a.turn(t.Context()); err != nil {
		t.Errorf("after him: %v", err)
	}
}
