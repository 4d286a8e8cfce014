package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/allexgo/machine-agent/agent/config"
	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// modules loads a catalogue of one module, which runs this test's program.
func modules(t *testing.T, text string) *module.Catalogue {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text = strings.Replace(text, "SELF", fmt.Sprintf("%q", self), 1)
	if err := os.WriteFile(filepath.Join(dir, "probe.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := module.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// loopAt is a loop with a session, seen as 10.0.0.1, that nobody runs.
func loopAt(t *testing.T) *loop {
	t.Helper()
	l := newLoop(&Agent{news: newNews(), staying: context.Background(), Config: Config{
		Config: config.Config{PortRanges: [3]port.Range{
			{Protocol: port.TCP, Start: 15000, Size: 1000},
			{Protocol: port.HTTP, Start: 16000, Size: 1000},
			{Protocol: port.WS, Start: 17000, Size: 1000},
		}},
		Catalogue: modules(t, `{"modulename": "probe", "command": [SELF]}`),
		Logger:    hclog.NewNullLogger(),
	}})
	t.Cleanup(l.ports.Close)
	l.up, l.read, l.linked = true, true, LinkStatus{Connected: true, SeenAs: "10.0.0.1"}
	return l
}

// needed is an instance with an open need.
func needed() *instance {
	return &instance{name: "Probe", need: &table.Need{InstanceName: "Probe", ModuleName: "probe"}}
}

// withChild gives an instance a process in that state.
func withChild(i *instance, s process.State) *instance {
	i.child = &child{keeper: &keeper{name: i.name}, origin: Started, state: s, ports: table.Ports{TCP: 15000}}
	return i
}

// servedAt gives an instance a record at an address.
func servedAt(i *instance, address string) *instance {
	i.service = &table.Service{InstanceName: i.name, IPAddress: address, Ports: table.Ports{TCP: 15000}}
	return i
}

// busyPort is a port that another program listens on.
func busyPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// TestDecide has a row for every decision, and for what comes before what.
func TestDecide(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	busy := busyPort(t)
	for name, test := range map[string]struct {
		build  func(l *loop) *instance
		want   Decision
		detail string // a part of it
		retry  bool   // it says when it looks again
	}{
		"nothing speaks against it": {
			func(*loop) *instance { return needed() },
			DecisionBid, "waits for one of the starts", false},
		"no session": {
			func(l *loop) *instance { l.up = false; return needed() },
			DecisionBid, "as soon as there is a session", false},
		"the offer is out": {
			func(*loop) *instance { i := needed(); i.bid = &bid{Bid: &link.Bid{}}; return i },
			DecisionBid, "the offer is with the LAN manager", false},
		"with the running process": {
			func(*loop) *instance { return withChild(needed(), process.Ready) },
			DecisionBid, "with the running process", false},
		"the tree of the last one is on its way out": {
			func(*loop) *instance { return withChild(needed(), process.Emptying) },
			DecisionBid, "", false},
		"the record of another is on its way out": {
			func(*loop) *instance { return servedAt(needed(), "10.0.0.2") },
			DecisionBid, "", false},

		"starting": {
			func(*loop) *instance { return withChild(needed(), process.Starting) },
			DecisionStarting, "it is being started", false},
		"stopping": {
			func(*loop) *instance { return withChild(needed(), process.Stopping) },
			DecisionStarting, "a new process starts when it is gone", false},
		"withdrawn": {
			func(*loop) *instance { return withChild(needed(), process.Withdrawn) },
			DecisionStarting, "", false},

		"served here": {
			func(*loop) *instance {
				return servedAt(withChild(&instance{name: "Probe"}, process.Ready), "10.0.0.1")
			},
			DecisionServedHere, "", false},
		"served here, the need's end on its way": {
			func(*loop) *instance { return servedAt(withChild(needed(), process.Ready), "10.0.0.1") },
			DecisionServedHere, "", false},
		"served elsewhere": {
			func(*loop) *instance { return servedAt(&instance{name: "Probe"}, "10.0.0.2") },
			DecisionServedElsewhere, "10.0.0.2", false},
		"served elsewhere while one runs here": {
			func(*loop) *instance {
				return servedAt(withChild(&instance{name: "Probe"}, process.Ready), "10.0.0.2")
			},
			DecisionServedElsewhere, "10.0.0.2", false},

		"drained": {
			func(l *loop) *instance { l.isDrained = true; return needed() },
			DecisionDrained, "`agentctl resume` lets it serve again", false},
		"drained, and on its way out": {
			func(l *loop) *instance { l.isDrained = true; return withChild(needed(), process.Stopping) },
			DecisionDrained, "", false},
		"drained comes before held": {
			func(l *loop) *instance {
				l.isDrained = true
				i := needed()
				i.held = true
				return i
			},
			DecisionDrained, "", false},
		"drained, and served elsewhere": {
			func(l *loop) *instance { l.isDrained = true; return servedAt(&instance{name: "Probe"}, "10.0.0.2") },
			DecisionServedElsewhere, "10.0.0.2", false},
		"held": {
			func(*loop) *instance { i := needed(); i.held = true; return i },
			DecisionHeld, "`agentctl start Probe` lifts it", false},
		"held comes before capacity": {
			func(l *loop) *instance {
				l.MaxProcesses, l.occupied = 1, 1
				i := needed()
				i.held = true
				return i
			},
			DecisionHeld, "", false},

		"capacity": {
			func(l *loop) *instance { l.MaxProcesses, l.occupied = 5, 5; return needed() },
			DecisionCapacity, "runs 5 of at most 5", false},
		"below capacity": {
			func(l *loop) *instance { l.MaxProcesses, l.occupied = 5, 4; return needed() },
			DecisionBid, "", false},
		"capacity, but it has its place": {
			func(l *loop) *instance {
				l.MaxProcesses, l.occupied = 5, 5
				i := needed()
				i.bid, i.occupied = &bid{Bid: &link.Bid{}}, true
				return i
			},
			DecisionBid, "", false},
		"capacity, and its offer waited too long to have a place": {
			func(l *loop) *instance {
				l.MaxProcesses, l.occupied = 5, 5
				i := needed()
				i.bid = &bid{Bid: &link.Bid{}}
				return i
			},
			DecisionCapacity, "", false},

		"another address": {
			func(*loop) *instance { i := needed(); i.need.IPAddress = "10.0.0.2"; return i },
			DecisionAddress, "asks for a machine at 10.0.0.2, this one is 10.0.0.1", false},
		"another network": {
			func(*loop) *instance { i := needed(); i.need.IPAddress = "192.168.0.0/16"; return i },
			DecisionAddress, "192.168.0.0/16", false},
		"our network": {
			func(*loop) *instance { i := needed(); i.need.IPAddress = "10.0.0.0/8"; return i },
			DecisionBid, "", false},
		"our network, said the LAN manager, it is not": {
			func(*loop) *instance {
				i := needed()
				i.need.IPAddress, i.rejected = "10.0.0.0/8", true
				return i
			},
			DecisionAddress, "", false},
		"the configured address counts": {
			func(l *loop) *instance {
				l.Address = "10.0.0.2"
				i := needed()
				i.need.IPAddress = "10.0.0.1"
				return i
			},
			DecisionAddress, "this one is 10.0.0.2", false},

		"not catalogued": {
			func(*loop) *instance { i := needed(); i.need.ModuleName = "allex_other"; return i },
			DecisionNotCatalogued, "add modules/other.json", false},
		"its limit can not be": {
			func(l *loop) *instance {
				l.Catalogue = modules(t, `{"modulename": "probe", "command": [SELF], "limits": {"memory": "64MiB", "pids": 9}}`)
				l.lacking = map[string]error{"pids": errors.New("pids are not ours to limit")}
				return needed()
			},
			DecisionNotCatalogued, `module "probe" can not run here: pids are not ours to limit`, false},

		"port taken": {
			func(*loop) *instance { i := needed(); i.need.Ports.HTTP = busy; return i },
			DecisionPortTaken, fmt.Sprint(busy), true},
		"port taken by another instance": {
			func(l *loop) *instance {
				if err := l.ports.Adopt("Other", table.Ports{TCP: 15999}); err != nil {
					t.Error(err)
				}
				i := needed()
				i.need.Ports.TCP = 15999
				return i
			},
			DecisionPortTaken, "Other", true},
		"a port of its own running process is not taken": {
			func(*loop) *instance {
				i := withChild(needed(), process.Ready)
				i.need.Ports.HTTP = busy
				return i
			},
			DecisionBid, "", false},

		"back-off": {
			func(*loop) *instance {
				i := needed()
				i.backoff, i.lastReason = backoff{failures: 3, until: soon}, "exit code 1"
				return i
			},
			DecisionBackoff, "ended too soon, 3 times, last: exit code 1", true},
		"back-off is over": {
			func(*loop) *instance {
				i := needed()
				i.backoff = backoff{failures: 3, until: time.Now().Add(-time.Second)}
				return i
			},
			DecisionBid, "", false},
		"the machine has none of what it needs": {
			func(*loop) *instance {
				i := needed()
				i.shortage = pause{times: 1, until: soon, reason: "no room"}
				return i
			},
			DecisionBackoff, "this machine can not start it now: no room", true},
		"the disk is stuck": {
			func(l *loop) *instance {
				l.stuck, l.StateDirectory = 1, "/state"
				return needed()
			},
			DecisionBackoff, "see to the disk of /state", false},
		"the disk is stuck, and its start with it": {
			func(l *loop) *instance {
				l.stuck, l.StateDirectory = 1, "/state"
				return withChild(needed(), process.Stopping)
			},
			DecisionBackoff, "see to the disk of /state", false},
		"the disk is stuck, and its process runs": {
			func(l *loop) *instance {
				l.stuck = 1
				return withChild(needed(), process.Ready)
			},
			DecisionBid, "with the running process", false},
		"the last offer led to nothing": {
			func(*loop) *instance {
				i := needed()
				i.rebid = pause{times: 1, until: soon, reason: "no answer"}
				return i
			},
			DecisionBackoff, "led to nothing: no answer", true},
		"the last offer of the running process led to nothing": {
			func(*loop) *instance {
				i := withChild(needed(), process.Ready)
				i.rebid = pause{times: 1, until: soon, reason: "no answer"}
				return i
			},
			DecisionBackoff, "", true},

		"pending": {
			func(*loop) *instance {
				i := needed()
				i.bid = &bid{Bid: &link.Bid{}, pending: true}
				return i
			},
			DecisionBidPending, "another agent", false},
		"pending with the running process": {
			func(*loop) *instance {
				i := withChild(needed(), process.Ready)
				i.bid = &bid{Bid: &link.Bid{}, pending: true}
				return i
			},
			DecisionBidPending, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			l := loopAt(t)
			i := test.build(l)
			v := l.decide(i)
			if v.Decision != test.want || !strings.Contains(v.detail, test.detail) || v.retry.IsZero() == test.retry {
				t.Errorf("decision %d, detail %q, retry %s; want %d, %q, retry %v", v.Decision, v.detail, v.retry, test.want, test.detail, test.retry)
			}
		})
	}
}

// TestPlaces has the six rows of the table, and that there is no place without
// a live process.
func TestPlaces(t *testing.T) {
	for _, test := range []struct {
		record   string // address
		needOpen bool
		want     Place
	}{
		{"", false, PlaceUnneeded},
		{"", true, PlaceOpen},
		{"10.0.0.1", false, PlaceServed},
		{"10.0.0.1", true, PlaceServed},
		{"10.0.0.2", false, PlaceElsewhere},
		{"10.0.0.2", true, PlaceOpen},
	} {
		t.Run(fmt.Sprintf("record %q, need open %v", test.record, test.needOpen), func(t *testing.T) {
			i := &instance{name: "Probe"}
			if test.needOpen {
				i = needed()
			}
			if test.record != "" {
				servedAt(i, test.record)
			}
			for _, s := range []process.State{process.Starting, process.Ready, process.Withdrawn, process.Stopping} {
				if got := withChild(i, s).place("10.0.0.1"); got != test.want {
					t.Errorf("%s: %s, want %s", s, got, test.want)
				}
			}
			for _, dead := range []*instance{withChild(i, process.Emptying), {name: "Probe", need: i.need, service: i.service}} {
				if got := dead.place("10.0.0.1"); got != None {
					t.Errorf("without a live process: %s, want %s", got, None)
				}
			}
		})
	}
	if len(places) != 6 {
		t.Errorf("%d rows, want 6", len(places))
	}
}

// TestPlaceByPorts: another agent at our address has other ports.
func TestPlaceByPorts(t *testing.T) {
	i := servedAt(withChild(&instance{name: "Probe"}, process.Ready), "10.0.0.1")
	i.service.Ports.WS = 17000
	if got := i.place("10.0.0.1"); got != PlaceElsewhere {
		t.Errorf("%s, want %s", got, PlaceElsewhere)
	}
}

func TestPlaceNames(t *testing.T) {
	var names []string
	for p := None; p <= PlaceUnneeded; p++ {
		names = append(names, p.String())
	}
	if want := []string{"NONE", "SERVED", "OPEN", "ELSEWHERE", "UNNEEDED"}; !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
}

func TestWithin(t *testing.T) {
	for _, test := range []struct {
		address, want string
		within        bool
	}{
		{"10.1.2.3", "10.1.2.3", true},
		{"10.1.2.3", "10.1.2.4", false},
		{"10.1.2.3", "10.1.2.3/32", true},
		{"10.1.2.3", "10.1.2.4/32", false},
		{"10.1.2.3", "10.0.0.0/8", true},
		{"10.1.2.3", "10.9.9.9/8", true}, // the base need not be masked
		{"10.1.2.3", "11.0.0.0/8", false},
		{"10.1.2.3", "0.0.0.0/0", true},
		{"192.168.1.255", "192.168.1.128/25", true},
		{"192.168.1.127", "192.168.1.128/25", false},
		{"::1", "::1", true},
		{"fe80::1", "fe80::/10", true},
		{"2001:db8::1", "fe80::/10", false},
		{"2001:db8::1", "0.0.0.0/0", false},
		{"10.1.2.3", "::/0", false},
		{"::ffff:10.1.2.3", "10.0.0.0/8", true},
		{"::ffff:11.1.2.3", "10.0.0.0/8", false},
		{"::ffff:10.1.2.3", "10.1.2.3", true},
		{"10.1.2.3", "::ffff:10.1.2.3", true},
		{"::1", "0:0:0:0:0:0:0:1", true},
		{"10.1.2.3", "", false},
		{"10.1.2.3", "10.0.0.0/33", false},
		{"10.1.2.3", "10.0.0.0/x", false},
		{"10.1.2.3", "nonsense", false},
		{"", "10.0.0.0/8", false},
		{"nonsense", "10.0.0.0/8", false},
	} {
		if got := within(test.address, test.want); got != test.within {
			t.Errorf("%q within %q: %v, want %v", test.address, test.want, got, test.within)
		}
	}
}

// Whose program the LAN manager is holds for as long as the session does.
func TestRecognised(t *testing.T) {
	l := loopAt(t)
	l.linked.LANManager = "10.0.0.9:23552"
	for _, step := range []struct {
		event link.Event
		want  LANManagerKind
	}{
		{link.Recognised{LANManager: "10.0.0.8:23552", Ours: true}, 0}, // of a session before
		{link.Recognised{LANManager: "10.0.0.9:23552", Ours: true}, OfThisProject},
		{link.Recognised{LANManager: "10.0.0.9:23552"}, Original},
		{link.Down{LANManager: "10.0.0.9:23552", Err: errors.New("lost")}, 0},
		{link.Recognised{LANManager: "10.0.0.9:23552", Ours: true}, 0},
	} {
		l.onLAN(step.event)
		if l.linked.Kind != step.want {
			t.Errorf("after %+v it is %d, want %d", step.event, l.linked.Kind, step.want)
		}
	}
}
