package agent

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/agent/config"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
)

// This file is what can change while the agent runs: the configuration in part,
// the catalogue, and how much the log says.

// Change is what a reload did.
type Change struct {
	Changed   []string // keys of the configuration that are in force anew
	Waiting   []string // keys that were changed and have to wait for a start of the agent
	Added     []string // modules
	Replaced  []string
	Unchanged []string
	Removed   []string
	// Outdated are the instances whose processes are of a module that was
	// replaced, and run on; Restarting are those that are being restarted.
	Outdated, Restarting []string
}

// ModuleState is a module of the catalogue, and what there is of it.
type ModuleState struct {
	*module.Module
	Processes int
	Outdated  int // of these
}

// Modules tells what this machine can run, ordered by name, and what is wrong with
// the files as they lie there now; "" if nothing is.
func (a *Agent) Modules(ctx context.Context) (all []ModuleState, problem string, err error) {
	if a.Load != nil {
		if _, _, err := a.Load(); err != nil {
			problem = err.Error()
		}
	}
	all, err = ask(ctx, a, func(l *loop) ([]ModuleState, error) {
		states := map[*module.Module]*ModuleState{}
		for _, m := range a.modules().All() {
			states[m] = &ModuleState{Module: m}
		}
		for _, i := range l.instances {
			if i.child == nil {
				continue
			}
			m, _ := a.modules().Find(i.lastModule)
			if s := states[m]; s != nil {
				s.Processes++
				if l.outdated(i) {
					s.Outdated++
				}
			}
		}
		var all []ModuleState
		for _, s := range states {
			all = append(all, *s)
		}
		slices.SortFunc(all, func(a, b ModuleState) int { return cmp.Compare(a.Name, b.Name) })
		return all, nil
	})
	return all, problem, err
}

// modules is the catalogue as it is now. It may be called from any goroutine.
func (a *Agent) modules() *module.Catalogue {
	if c := a.catalogue.Load(); c != nil {
		return c
	}
	return a.Catalogue
}

// outdated tells whether the process of an instance was started from a module that
// is another one now.
func (l *loop) outdated(i *instance) bool {
	if i.child == nil {
		return false
	}
	started := i.child.record.ModuleMark // written before the keeper began, never changed
	now, found := l.modules().Find(i.lastModule)
	return found && started != (module.Mark{}) && now.Mark() != started
}

// Reload reads the configuration and the catalogue again and puts in force what
// can be while the agent runs; with restart it also restarts the processes that
// are outdated then. With any mistake in the files nothing changes. Errors:
// WrongState, with all mistakes.
func (a *Agent) Reload(ctx context.Context, restart bool) (Change, error) {
	if a.Load == nil {
		return Change{}, &Error{Kind: WrongState, Reason: FilesInvalid, Message: "this agent was not made from files; start it again to change it"}
	}
	a.reloading.Lock() // so that older files never replace newer ones
	defer a.reloading.Unlock()
	cfg, catalogue, err := a.Load()
	if err != nil {
		return Change{}, &Error{Kind: WrongState, Reason: FilesInvalid,
			Message: "nothing was changed: " + strings.TrimSpace(err.Error()) + "; correct the files and reload again"}
	}
	return ask(context.WithoutCancel(ctx), a, func(l *loop) (Change, error) { return l.take(cfg, catalogue, restart), nil })
}

// take puts new files in force.
func (l *loop) take(cfg config.Config, catalogue *module.Catalogue, restart bool) Change {
	var c Change
	c.Changed, c.Waiting = l.Config.Config.Take(cfg)
	if slices.Contains(c.Changed, "log.level") {
		l.Logger.SetLevel(hclog.LevelFromString(cfg.Log.Level))
	}
	before := l.modules()
	l.catalogue.Store(catalogue)
	c.Added, c.Replaced, c.Unchanged, c.Removed = catalogue.Since(before)
	l.Logger.Info("files read again", "changed", c.Changed, "wait for a start", c.Waiting,
		"modules added", c.Added, "modules changed", c.Replaced, "modules removed", c.Removed, "unchanged", len(c.Unchanged))
	l.happened(Event{Kind: Reloaded})
	for _, i := range l.instances {
		if l.outdated(i) {
			if restart && l.irreplaceable(i) == nil && i.child.origin != Outside && (i.child.state == process.Ready || i.child.state == process.Starting) {
				i.rebid = pause{}
				l.forgive(i)
				l.stop(i, "its module has changed", true)
				c.Restarting = append(c.Restarting, i.name)
			} else {
				c.Outdated = append(c.Outdated, i.name)
			}
		}
		l.settle(i)
	}
	slices.Sort(c.Outdated)
	slices.Sort(c.Restarting)
	return c
}

// SetLogLevel makes the agent's log say more or less, and tells how much it said
// before. Errors: Invalid.
func (a *Agent) SetLogLevel(level string) (before string, err error) {
	to := hclog.LevelFromString(level)
	if to == hclog.NoLevel || to == hclog.Off {
		return "", invalid("level", "%q is none of trace, debug, info, warn and error", level)
	}
	before = a.Logger.GetLevel().String()
	a.Logger.SetLevel(to)
	return before, nil
}
