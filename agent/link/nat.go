package link

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/allexgo/machine-agent/lan/table"
)

// natTable is a session's mirror of the table of translated addresses. It is
// asked for when somebody wants it first: most machines of a LAN never do.
type natTable struct {
	begin sync.Once
	read  chan struct{} // closed when it has been read, or can not be
	mu    sync.Mutex
	table *table.Mirror
	err   error // why it can not be read
}

func newNATTable() *natTable {
	return &natTable{read: make(chan struct{}), table: table.NewMirror(table.NATs)}
}

// NAT is the LAN's table of translated addresses. It blocks until that has been
// read; after the first time in a session it does not. Errors: ErrNoSession, what
// the LAN manager says, those of ctx.
func (l *Link) NAT(ctx context.Context) ([]table.NAT, error) {
	s := l.current()
	if s == nil {
		return nil, ErrNoSession
	}
	n := s.nat
	n.begin.Do(func() { l.tasks.Go(func() { l.followNAT(s) }) })
	select {
	case <-n.read:
	case <-s.root.Done():
		return nil, ErrNoSession
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return nil, n.err
	}
	var all []table.NAT
	for _, r := range n.table.All() {
		all = append(all, table.ParseNAT(r))
	}
	return all, nil
}

// followNAT keeps the mirror until the session ends.
func (l *Link) followNAT(s *session) {
	n := s.nat
	data, err := s.sub(l.ctx, "nat")
	if err == nil {
		err = data.Query(l.ctx, map[string]any{"continuous": true}, func(item json.RawMessage) {
			n.mu.Lock()
			defer n.mu.Unlock()
			before := n.table.Complete()
			if _, err := n.table.Apply(item); err != nil {
				l.Logger.Warn("odd item from the LAN manager is left out", "item", excerpt(item), "error", err)
			}
			if !before && n.table.Complete() {
				close(n.read)
			}
		})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err = fmt.Errorf("the LAN manager does not show its table of translated addresses: %w", err); err == nil {
		n.err = errQueryEnded
	}
	if !n.table.Complete() {
		close(n.read)
	}
}
