package lanmanager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/allexgo/machine-agent/lanmanager/page"
)

func (x *timed) snapshot() *page.Snapshot {
	x.t.Helper()
	synctest.Wait()
	s, err := x.m.Snapshot(context.Background())
	if err != nil {
		x.t.Fatal(err)
	}
	return s
}

// why is why a need is open.
func (x *timed) why(name string) string {
	x.t.Helper()
	for _, n := range x.snapshot().Needs {
		if n.Instance == name && n.Open {
			return n.Why
		}
	}
	x.t.Fatalf("%s is not open", name)
	return ""
}

func TestWhyNeedsAreOpen(t *testing.T) {
	good, deaf := listener(t), deafPort(t)
	inTime(t, `[{"instancename":"A","timeout":7},{"instancename":"B","ipaddress":"10.0.0.0/8"}]`, func(x *timed) {
		check := func(name string, parts ...string) {
			t.Helper()
			got := x.why(name)
			for _, part := range parts {
				if !strings.Contains(got, part) {
					t.Errorf("%s is open: %q, want it to say %q", name, got, part)
				}
			}
		}
		check("A", "Nobody has bid for it yet", "no agent is connected")
		one := x.agent("one", "127.0.0.1")
		keepAlive(one.peer)
		check("A", "Nobody has bid for it yet", "1 agent is connected")
		check("B", "No connected machine", "10.0.0.0/8")
		one.value(one.on("B"), "!", "bid", map[string]string{})
		check("B", "tester bid for it from 127.0.0.1, which is not in 10.0.0.0/8")

		n := one.on("A")
		ticket := one.bid(n)
		check("A", "Waits for tester", time.Now().Format("15:04:05"))
		checks := func() *checkQueue { return &x.m.lan.parties[owner{id: "one"}].checks }
		x.inside(func() { checks().running = checksOfParty })
		id := one.begin(n, "!", "respond", ticket, map[string]int{"pid": 1, "tcpport": deaf})
		check("A", "tester says that it serves it", "its ports are being tried")
		x.inside(func() {
			checks().running = 0
			x.m.lan.checks.queue(x.m.lan.parties[owner{id: "one"}])
			x.m.lan.checks.start()
		})
		one.answer(id)
		check("A", "Waits for tester", fmt.Sprintf("none of the ports [tcpport %d] of 127.0.0.1 accepts", deaf))
		time.Sleep(7 * time.Second)
		check("A", "tester bid for it and did not answer within 7s", "1 agent is connected")

		one.serveAll(good, "A")
		one.value(one.lan, ".", "notifyServiceDown", "A", map[string]any{"reason": "exited", "status": map[string]int{"code": 3}})
		check("A", `Its service went down: exited, status {"code":3}`, "nobody has bid for it since")

		looping := map[string]any{"reason": "it ended by itself; crash loop", "status": map[string]int{"code": 3}}
		for range 2 {
			if got := one.value(one.lan, ".", "notifyServiceFails", "A", looping); got != "true" {
				t.Errorf("notifyServiceFails: %s", got)
			}
		}
		check("A", `Last, tester started it, but it ended by itself; crash loop, status {"code":3}`)
		told := 0
		for _, e := range x.snapshot().Events {
			if e.Kind == page.ServiceFails && e.Subject == "A" && strings.Contains(e.Text, "crash loop") {
				told++
			}
		}
		if told != 1 {
			t.Errorf("the journal tells %d times that it fails", told)
		}
		if got := one.value(one.lan, ".", "notifyServiceFails", "no such need", looping); got != "false" {
			t.Errorf("notifyServiceFails of no need: %s", got)
		}
		other := x.agent("", "127.0.0.3")
		if got := other.value(other.lan, ".", "notifyServiceFails", "A", looping); !strings.Contains(got, "ID_MISSING") {
			t.Errorf("who has no id gets %s", got)
		}
	})
}

func TestSnapshot(t *testing.T) {
	port := listener(t)
	inTime(t, `[{"instancename":"A","modulename":"m","propertyhash":{"secret":"s3cret"},"tcpport":1,"wsport":3},{"instancename":"B","ipaddress":"127.0.0.1"}, 5]`, func(x *timed) {
		one := x.agent("one", "127.0.0.1")
		keepAlive(one.peer)
		master := x.agent("", "127.0.0.2")
		keepAlive(master.peer)
		one.value(one.lan, ".", "addNeed", map[string]string{"instancename": "C"})
		one.serveAll(port, "B")
		s := x.snapshot()
		want := &page.Snapshot{
			Listeners: []string{"ws "}, // of this test
			Needs: []page.Need{
				{Instance: "A", Module: "m", Ports: "tcp 1 ws 3", Open: true, Source: "needs"},
				{Instance: "B", Address: "127.0.0.1", Source: "needs"},
				{Instance: "C", Open: true, Source: "needs.runtime"},
			},
			Services: []page.Service{{Instance: "B", Address: "127.0.0.1", TCP: port, Owner: "tester"}},
			Machines: []page.Machine{
				{Name: "tester", Address: "127.0.0.2", Kind: "original", Envelopes: []string{"ws"}, Sessions: 1, Connected: true},
				{Name: "tester", ID: "one", Address: "127.0.0.1", Kind: "agent", Envelopes: []string{"ws"}, Sessions: 1, Services: 1, Connected: true},
			},
			NAT: []page.NAT{{IAddress: "192.168.1.1", IPort: "12345", EAddress: "1.2.3.4", EPort: "80"}},
		}
		ignored := cmp.Options{
			cmpopts.IgnoreFields(page.Snapshot{}, "Revision", "Time", "Started", "Problems", "Events"),
			cmpopts.IgnoreFields(page.Need{}, "Why", "Since"),
			cmpopts.IgnoreFields(page.Service{}, "Since"),
			cmpopts.IgnoreFields(page.Machine{}, "Since"),
		}
		if diff := cmp.Diff(want, s, ignored); diff != "" {
			t.Errorf("snapshot (-want +got):\n%s", diff)
		}
		if len(s.Problems) != 1 || !strings.Contains(s.Problems[0].File, "needs") || !strings.Contains(s.Problems[0].Text, "[2]") {
			t.Errorf("problems: %+v", s.Problems)
		}
		if text, _ := json.Marshal([]any{s, s.Needs, s.Services, s.Events}); strings.Contains(string(text), "s3cret") {
			t.Errorf("a propertyhash is in the snapshot: %s", text)
		}
		for _, since := range []time.Time{s.Needs[0].Since, s.Needs[1].Since, s.Services[0].Since, s.Machines[0].Since, s.Started, s.Time} {
			if since.IsZero() || since.After(s.Time) {
				t.Errorf("since %s in a snapshot of %s", since, s.Time)
			}
		}

		one.conn.Close() // its service is unconfirmed from now on, and it is away
		s = x.snapshot()
		if !s.Services[0].Unconfirmed || s.Machines[1].Connected || s.Machines[1].Envelopes != nil {
			t.Errorf("after the loss: %+v %+v", s.Services, s.Machines)
		}
		time.Sleep(5 * time.Second)
		s = x.snapshot()
		if len(s.Services) != 0 || len(s.Machines) != 1 {
			t.Errorf("after the grace: %+v %+v", s.Services, s.Machines)
		}
		var kinds []string
		for _, e := range s.Events {
			kinds = append(kinds, e.Kind+" "+e.Subject)
		}
		for _, want := range []string{"file ", "session begun tester", "need open C", "service up B", "session ended tester", "service down B"} {
			if !strings.Contains(strings.Join(kinds, "\n"), want) {
				t.Errorf("no event %q in %q", want, kinds)
			}
		}
	})
}

// Who waits for a change is told of the next one, and of none that is not.
func TestChanged(t *testing.T) {
	inTime(t, `[{"instancename":"A"}]`, func(x *timed) {
		one := x.agent("one", "127.0.0.1")
		keepAlive(one.peer)
		since := x.snapshot().Revision
		got := make(chan uint64, 1)
		go func() {
			revision, err := x.m.Changed(context.Background(), since)
			if err != nil {
				t.Error(err)
			}
			got <- revision
		}()
		time.Sleep(15 * time.Second) // pings are no change
		select {
		case revision := <-got:
			t.Fatalf("revision %d after %d, and nothing has happened", revision, since)
		default:
		}
		one.bid(one.on("A"))
		if revision := <-got; revision <= since || revision > x.snapshot().Revision {
			t.Errorf("revision %d after %d", revision, since)
		}
		if revision, err := x.m.Changed(context.Background(), since); err != nil || revision == since {
			t.Errorf("one who comes late: %d, %v", revision, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := x.m.Changed(ctx, x.snapshot().Revision); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one who waits in vain: %v", err)
		}
		go func() {
			_, err := x.m.Changed(context.Background(), x.m.news.now())
			if !errors.Is(err, errEnding) {
				t.Errorf("one who waits when the LAN manager ends: %v", err)
			}
		}()
		synctest.Wait()
	})
}

func TestJournalForgets(t *testing.T) {
	var j journal
	for i := range 2*mostEvents + 10 {
		j.add(page.File, fmt.Sprint(i), "")
		if i%mostEvents > 10 {
			continue
		}
		if all := j.all(); len(all) != min(i+1, mostEvents) || all[len(all)-1].Subject != fmt.Sprint(i) ||
			all[0].Subject != fmt.Sprint(max(0, i+1-mostEvents)) {
			t.Fatalf("after event %d: %d events from %s", i, len(all), all[0].Subject)
		}
	}
}

func TestMetrics(t *testing.T) {
	port := listener(t)
	inTime(t, `[{"instancename":"A","modulename":"m"},{"instancename":"B","modulename":"m"}]`, func(x *timed) {
		one := x.agent("one", "127.0.0.1")
		keepAlive(one.peer)
		one.serveAll(port, "A")
		one.value(one.lan, ".", "notifyServiceDown", "A")
		one.serveAll(port, "A")
		n := one.on("B")
		one.call(n, "!", "respond", one.bid(n), map[string]int{"pid": 1})
		synctest.Wait()
		for name, want := range map[string]float64{
			"lanmanager_needs": 2, "lanmanager_needs_open": 1, "lanmanager_services": 1, "lanmanager_machines": 1,
			"lanmanager_sessions": 1, "lanmanager_file_problems": 0, "lanmanager_bids_total": 3,
			"lanmanager_challenges_total": 3, "lanmanager_connections ws": 1, "lanmanager_connections signalr": 0,
			"lanmanager_responses_total accepted": 2, "lanmanager_responses_total unreachable": 1,
			"lanmanager_service_downs_total reported": 1, "lanmanager_port_check_seconds": 3,
		} {
			if got := figures(t, x.m.metrics.registry)[name]; got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		all := figures(t, x.m.metrics.registry)
		for _, name := range []string{"lanmanager_units_total in", "lanmanager_units_total out", "lanmanager_core_turn_seconds", "go_goroutines"} {
			if all[name] == 0 {
				t.Errorf("%s is 0", name)
			}
		}
	})
}

// figures are the metrics by name and label; of a histogram its count.
func figures(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			all[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}
