package agent

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/lan/table"
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

// An agent was killed between the start of a process and its record. Where there are no
// cgroups the next one finds the process by its environment, and starts no second one.
func TestAdoptedWithoutItsPID(t *testing.T) {
	l := loopWithStore(t)
	l.Socket = filepath.Join(t.TempDir(), "agent.sock")
	for _, name := range []string{"Started", "NeverStarted"} {
		r := state.Record{Instance: name, Module: "probe", Phase: state.Starting, Origin: originStarted, Ports: table.Ports{HTTP: 16007}, LogFrom: 42}
		if err := l.Store.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("sleep", "60")
	c.Env = append(os.Environ(), "MACHINEAGENT_ADDRESS=unix:"+l.Socket, "MACHINEAGENT_INSTANCE=Started")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // killed
	})
	if err := l.adopt(); err != nil {
		t.Fatal(err)
	}
	if i := l.instances["Started"]; i == nil || i.child == nil || i.child.pid() != c.Process.Pid || i.child.ports.HTTP != 16007 || i.child.record.LogFrom != 42 {
		t.Errorf("process %d is not taken over as its record has it: %+v", c.Process.Pid, i)
	}
	if i := l.instances["NeverStarted"]; i != nil && i.child != nil {
		t.Errorf("there is no such process: %+v", i.child)
	}
	if len(l.strays) != 0 {
		t.Errorf("strays: %v", l.strays)
	}
}
