package agent

import (
	"testing"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
)

// A record says from which text of its module a process was started. Of one that
// does not, what changes from the adoption on is seen.
func TestAdoptedOutdated(t *testing.T) {
	l := loopWithStore(t)
	now, _ := l.modules().Find("probe")
	for name, test := range map[string]struct {
		mark          module.Mark
		before, after bool // the module changes
	}{
		"same":    {now.Mark(), false, true},
		"other":   {module.Mark{1}, true, true},
		"unknown": {module.Mark{}, false, true},
	} {
		p, err := process.Watch(sleeper(t))
		if err != nil {
			t.Fatal(err)
		}
		l.adoptRecord(state.Record{Instance: name, Module: "probe", ModuleMark: test.mark, Phase: state.Running,
			Identity: p.Identity(), Origin: originOutside, Ready: true}, p, nil)
		was := l.modules()
		if got := l.snapshot(l.instances[name]).Outdated; got != test.before {
			t.Errorf("%s: outdated %v when it is adopted", name, got)
		}
		l.catalogue.Store(modules(t, `{"modulename": "probe", "command": [SELF, "more"]}`))
		if got := l.snapshot(l.instances[name]).Outdated; got != test.after {
			t.Errorf("%s: outdated %v when the module has changed", name, got)
		}
		l.catalogue.Store(was)
	}
}
