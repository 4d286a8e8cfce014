package agent

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/agent/config"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// What a new catalogue changes is outdated and runs on; what it brings is bid for;
// white space is no change.
func TestTakeCatalogue(t *testing.T) {
	l := watched(t)
	l.shutdown = true // no bids
	m, _ := l.modules().Find("probe")
	x := withChild(l.get("X"), process.Ready)
	x.lastModule, x.child.record.ModuleMark = "probe", m.Mark()
	unknown := withChild(l.get("Unknown"), process.Ready)
	unknown.lastModule = "probe" // what it was started from was not recorded
	l.get("Y").need = &table.Need{InstanceName: "Y", ModuleName: "other"}
	cfg := l.Config.Config

	if c := l.take(cfg, modules(t, `{ "modulename":"probe",   "command": [SELF]}`), false); !cmp.Equal(c, Change{Unchanged: []string{"probe"}}) || l.snapshot(x).Outdated {
		t.Errorf("white space changed %+v", c)
	}
	cfg.MaxProcesses, cfg.Name = 7, "elsewhere"
	c := l.take(cfg, modules(t, `{"modulename": "probe", "command": [SELF, "more"]}`), false)
	want := Change{Changed: []string{"maxprocesses"}, Waiting: []string{"name"}, Replaced: []string{"probe"}, Outdated: []string{"X"}}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if l.MaxProcesses != 7 || l.Name != "" || !l.snapshot(x).Outdated || x.child.state != process.Ready {
		t.Errorf("%d processes, name %q, outdated %v, state %v", l.MaxProcesses, l.Name, l.snapshot(x).Outdated, x.child.state)
	}
	if v := l.decide(l.get("Y")); v.Decision != DecisionNotCatalogued {
		t.Errorf("decision %v", v)
	}
	c = l.take(cfg, modules(t, `{"modulename": "other", "command": [SELF]}`), false)
	want = Change{Waiting: []string{"name"}, Added: []string{"other"}, Removed: []string{"probe"}}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if v := l.decide(l.get("Y")); v.Decision != DecisionBid {
		t.Errorf("decision %v", v)
	}
}

// A mistake changes nothing, and is told.
func TestReloadWithMistakes(t *testing.T) {
	l := watched(t)
	l.Load = func() (config.Config, *module.Catalogue, error) {
		return config.Config{}, nil, errors.New("f.json:1:2: wrong")
	}
	before := l.modules()
	_, err := l.Reload(context.Background(), false)
	var told *Error
	if !errors.As(err, &told) || told.Reason != FilesInvalid || told.Message != "nothing was changed: f.json:1:2: wrong; correct the files and reload again" {
		t.Errorf("error %v", err)
	}
	if l.modules() != before {
		t.Error("there is another catalogue")
	}
}

func TestTranslate(t *testing.T) {
	all := []table.NAT{
		{IAddress: "10.0.0.1", IPort: table.PortRange{From: 80, To: 80}, EAddress: "1.2.3.4", EPort: 8080},
		{IAddress: "10.0.0.1", IPort: table.PortRange{From: 1000, To: 2000}, EAddress: "1.2.3.5"},
		{IAddress: "10.0.0.2", IPort: table.PortRange{From: 80, To: 80}},
	}
	for _, test := range []struct {
		address    string
		port       int
		to         string
		toPort     int
		translated bool
	}{
		{"10.0.0.1", 80, "1.2.3.4", 8080, true},
		{"10.0.0.1", 1000, "1.2.3.5", 1000, true},
		{"10.0.0.1", 2000, "1.2.3.5", 2000, true},
		{"10.0.0.1", 2001, "10.0.0.1", 2001, false},
		{"10.0.0.2", 80, "10.0.0.2", 80, false}, // a record that says nothing
		{"10.0.0.3", 80, "10.0.0.3", 80, false},
	} {
		to, toPort, translated := translate(all, test.address, test.port)
		if to != test.to || toPort != test.toPort || translated != test.translated {
			t.Errorf("%s %d is %s %d, %v", test.address, test.port, to, toPort, translated)
		}
	}
}
