package page

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// source is a Source that shows what it was given: data without behaviour.
type source struct {
	mu      sync.Mutex
	now     Snapshot
	changed chan struct{} // closed when now changes
	asked   []time.Time   // for a snapshot
}

func newSource(s Snapshot) *source { return &source{now: s, changed: make(chan struct{})} }

// change makes a new revision.
func (s *source) change(f func(*Snapshot)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.now)
	s.now.Revision++
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *source) Snapshot(context.Context) (*Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, time.Now())
	now := s.now
	return &now, nil
}

func (s *source) Changed(ctx context.Context, since uint64) (uint64, error) {
	for {
		s.mu.Lock()
		revision, changed := s.now.Revision, s.changed
		s.mu.Unlock()
		if revision != since {
			return revision, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// stuck is a core that does not answer.
type stuck struct{}

func (stuck) Snapshot(ctx context.Context) (*Snapshot, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (stuck) Changed(ctx context.Context, _ uint64) (uint64, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// lan is a LAN of n needs. Of a few something is wrong.
func lan(n int, now time.Time) Snapshot {
	s := Snapshot{
		Revision: 7, Time: now, Started: now.Add(-3 * time.Hour), Version: "v0.3.0",
		Listeners: []string{"ws 127.0.0.1:23552", "ws 127.0.0.1:23451", "signalr 127.0.0.1:22451"},
		NAT:       []NAT{{"192.168.1.1", "12345", "1.2.3.4", "80"}, {"192.168.1.7", "15000-15999", "1.2.3.4", "0"}},
	}
	if n == 0 {
		return s
	}
	modules := []string{"allex_timeservice", "allex_userservice", "dotnet:Billing.Invoices", "echo", "files"}
	for i := range 5 {
		m := Machine{Name: []string{"mars", "venus", "saturn", "pluto", "neptune"}[i], Address: fmt.Sprintf("192.168.1.%d", 10+i),
			ID: fmt.Sprintf("7f3a91c04e5d%04x", i*4951), Kind: "agent", Envelopes: []string{"ws"}, Sessions: 4,
			Since: now.Add(-time.Duration(i+1) * 50 * time.Minute), Connected: true}
		if i == 3 {
			m.ID, m.Kind, m.Envelopes = "", "original", []string{"signalr"}
		}
		s.Machines = append(s.Machines, m)
	}
	s.Machines[4].Connected, s.Machines[4].Sessions, s.Machines[4].Since = false, 0, now.Add(-4*time.Second)
	why := []string{
		"No agent has bid: none of the connected ones has the module in its catalogue.",
		"Its address 10.7.0.0/16 fits none of the connected machines.",
		"mars bid 3 s ago; its ports are being tried.",
	}
	for i := range n {
		need := Need{Instance: fmt.Sprintf("Node%d", i+1), Module: modules[i%len(modules)], Since: now.Add(-time.Duration(i+1) * 7 * time.Second), Source: "needs"}
		if i == 0 {
			need.Instance = "Time"
		}
		if i%9 == 4 {
			need.Ports = fmt.Sprintf("tcp %d http %d", 15000+i%1000, 16000+i%1000)
		}
		if i%16 == 11 {
			need.Source = "needs.runtime"
		}
		if i%17 == 16 && i/17 < len(why) {
			need.Open, need.Why = true, why[i/17]
			if i/17 == 1 {
				need.Address = "10.7.0.0/16"
			}
		} else {
			m := &s.Machines[i%5]
			m.Services++
			s.Services = append(s.Services, Service{Instance: need.Instance, Module: need.Module, Address: m.Address, TCP: 15000 + i%1000,
				HTTP: 16000 + i%1000, WS: 17000 + i%1000, Owner: m.Name, Since: need.Since, Unconfirmed: !m.Connected})
		}
		s.Needs = append(s.Needs, need)
	}
	s.Problems = []Problem{{"needs.overlay", "The LAN manager runs without it; needs hold as they are in the file needs.",
		`.allexlanmanager/needs.overlay:7:3: invalid character '}' looking for beginning of value; remove the comma before it`}}
	s.Events = []Event{
		{now.Add(-49 * time.Hour), SessionBegun, "pluto", "An original master at 192.168.1.13, over signalr."},
		{now.Add(-50 * time.Minute), SessionBegun, "mars", "Agent 7f3a91c04e5d0000 at 192.168.1.10."},
		{now.Add(-12 * time.Minute), ServiceUp, "Node3", "venus accepted at 192.168.1.12: tcp 15002, http 16002, ws 17002."},
		{now.Add(-11 * time.Minute), Refused, "10.0.3.9", "An introduction from outside of subnets."},
		{now.Add(-6 * time.Minute), ServiceDown, "Node34", "mars: exit status 139 (SIGSEGV) after 5 h."},
		{now.Add(-6 * time.Minute), NeedOpen, "Node34", ""},
		{now.Add(-5 * time.Minute), BidTakenBack, "Node34", "venus did not answer the challenge within 30 s."},
		{now.Add(-48 * time.Second), File, "needs.overlay", "Not JSON at 7:3; what was there before holds on."},
		{now.Add(-9 * time.Second), ServiceDown, "Node17", "mars: exit status 1: listen tcp 0.0.0.0:15016: bind: address already in use"},
		{now.Add(-4 * time.Second), SessionEnded, "neptune", "Nothing was heard for 20 s; its services have 5 s to be confirmed."},
	}
	return s
}
