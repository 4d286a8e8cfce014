package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// TestYoungProcess: a process that has only just been started is not told off for
// where it listens.
func TestYoungProcess(t *testing.T) {
	l := loopAt(t)
	now := time.Now()
	c := withChild(l.get("X"), process.Starting).child
	c.module, _ = l.Catalogue.Find("probe")
	for _, test := range []struct {
		age   time.Duration
		state process.State
		young bool
	}{
		{0, process.Starting, true},
		{c.module.StartTimeout/2 - 1, process.Starting, true},
		{c.module.StartTimeout / 2, process.Starting, false},
		{0, process.Ready, false},
	} {
		c.start, c.state = now.Add(-test.age), test.state
		if c.young(now) != test.young {
			t.Errorf("%s for %s: young is %v", test.state, test.age, !test.young)
		}
	}

	lease := PortLease{PID: 1, Listener: ListenerOurs}
	lease.Instance = "X"
	v := portView{asked: map[string]asked{"X": {host: "10.0.0.1", ports: table.Ports{TCP: 15000}}},
		owned: map[string]ownership{"X": {sockets: []process.Listener{{Address: netip.MustParseAddrPort("127.0.0.1:15000")}}}}}
	if got := v.detail(lease, nil, nil); !strings.Contains(got, "; have it listen on that address") {
		t.Errorf("of one that is ready: %q", got)
	}
	v.young = map[string]bool{"X": true}
	if got := v.detail(lease, nil, nil); got != "" {
		t.Errorf("of one that starts: %q", got)
	}
}
