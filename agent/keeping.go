package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/allexgo/machine-agent/agent/state"
)

// keeping orders the writes of kept.json: what is older never replaces what is
// newer.
type keeping struct {
	sync.Mutex
	written int
}

// write has k on the disk when it returns, unless something newer is there.
func (a *Agent) write(k state.Kept, version int) error {
	a.keeping.Lock()
	defer a.keeping.Unlock()
	if version <= a.keeping.written {
		return nil
	}
	if err := a.Store.Keep(k); err != nil {
		return err
	}
	a.keeping.written = version
	return nil
}

// kept is what outlives this agent, with a version higher than all before.
func (l *loop) kept() (state.Kept, int) {
	l.versions++
	return state.Kept{Holds: l.holds(), Drained: l.isDrained, Loops: l.loops()}, l.versions
}

// holds are the instances that are held, in order.
func (l *loop) holds() (all []string) {
	for _, i := range l.instances {
		if i.held {
			all = append(all, i.name)
		}
	}
	slices.Sort(all)
	return all
}

// changeKept makes a change of holds or of the drain, and has it on disk before
// it returns.
func changeKept[T any](ctx context.Context, a *Agent, change func(*loop) (T, error)) (T, error) {
	type changed struct {
		answer  T
		kept    state.Kept
		version int
	}
	var none T
	// What was changed has to be written, whether the caller waits or not.
	c, err := ask(context.WithoutCancel(ctx), a, func(l *loop) (changed, error) {
		answer, err := change(l)
		if err != nil {
			return changed{}, err
		}
		c := changed{answer: answer}
		c.kept, c.version = l.kept()
		return c, nil
	})
	if err != nil {
		return none, err
	}
	if err := a.write(c.kept, c.version); err != nil {
		return none, &Error{Kind: Exhausted, Message: fmt.Sprintf("the change is in force but is not written, and is lost if the agent ends before it is, which is tried again: %v", err)}
	}
	return c.answer, nil
}

// keep has that written by and by. What changes during a write is written in one
// go after it.
func (l *loop) keep() {
	if l.writing {
		l.unwritten = true
		return
	}
	l.writing, l.unwritten = true, false
	k, version := l.kept()
	a := l.Agent
	a.tasks.Go(func() {
		if err := a.write(k, version); err != nil {
			a.Logger.Warn("crash loops could not be recorded; it is tried again, and they are forgotten if the agent ends before", "error", err)
		}
		a.post(func(l *loop) {
			l.writing = false
			if l.unwritten {
				l.keep()
			}
		})
	})
}
