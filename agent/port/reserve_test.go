package port

import (
	"errors"
	"testing"

	"github.com/allexgo/machine-agent/lan/table"
)

// A reserved port is nobody else's, whatever becomes of the instance that it is
// listed for, until it is given back.
func TestReserve(t *testing.T) {
	o, first := office(t, 1)
	got, err := o.Reserve(TCP, 0, "A")
	if err != nil || got != first {
		t.Fatalf("port %d, %v; want %d", got, err, first)
	}
	defer o.Unreserve(got)
	var taken *TakenError
	if _, err := o.Reserve(HTTP, first, "B"); !errors.As(err, &taken) || taken.Holder != "A" {
		t.Errorf("reserved twice: %v", err)
	}
	if _, err := o.Lease(Request{Instance: "B", Protocols: []Protocol{TCP}, Mode: Reserved}); err == nil {
		t.Error("leased to another instance")
	}
	ports, err := o.Lease(Request{Instance: "A", Protocols: []Protocol{HTTP}, Mode: Reserved})
	if err != nil || ports != (table.Ports{HTTP: first + 1}) {
		t.Errorf("the instance's own lease: %v, %v", ports, err)
	}
	o.Release("A")
	if l, ok := o.Has(first); !ok || l.Instance != "A" || l.State != StateReserved {
		t.Errorf("after the release of the instance: %v, %v", l, ok)
	}
	if err := o.Bindable(first + 1); err != nil {
		t.Errorf("a free port: %v", err)
	}
	if err := o.Bindable(first); !errors.As(err, &taken) {
		t.Errorf("a reserved port can be had: %v", err)
	}
	o.Unreserve(first)
	o.Unreserve(first)
	if got, err := o.Reserve(WS, first, "B"); err != nil || got != first {
		t.Errorf("given back, and then %d, %v", got, err)
	}
	o.Unreserve(first)
	if _, err := o.Reserve(TCP, 70000, "B"); !errors.Is(err, ErrNotAPort) {
		t.Errorf("port 70000: %v", err)
	}
}
