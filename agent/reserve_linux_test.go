package agent

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// reserve has the loop reserve a port for a process.
func reserve(t *testing.T, l *loop, r Reservation) (PortLease, error) {
	t.Helper()
	p, err := process.Watch(r.PID)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := l.reserve(r, p)
	if err != nil {
		p.Close()
	}
	return lease, err
}

// A reserved port comes back when its process ends, and not before.
func TestReservationEndsWithItsProcess(t *testing.T) {
	l := loopWithStore(t)
	pid := sleeper(t)
	lease, err := reserve(t, l, Reservation{Protocol: port.HTTP, PID: pid})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reserve(t, l, Reservation{Protocol: port.TCP, Port: lease.Port, PID: os.Getpid()}); err == nil {
		t.Error("it was reserved twice")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	event := <-l.inbox
	if _, ok := l.ports.Has(lease.Port); !ok {
		t.Error("it came back before the loop knew of the end")
	}
	event(l)
	if has, ok := l.ports.Has(lease.Port); ok {
		t.Errorf("it is still leased: %+v", has)
	}
	if len(l.reserved) != 0 {
		t.Errorf("still reserved: %v", l.reserved)
	}
}

// One process can not have all ports.
func TestReservationsAreBounded(t *testing.T) {
	l := loopWithStore(t)
	pid := sleeper(t)
	for range reservedByOne {
		if _, err := reserve(t, l, Reservation{Protocol: port.TCP, PID: pid}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := reserve(t, l, Reservation{Protocol: port.TCP, PID: pid})
	var told *Error
	if !errors.As(err, &told) || told.Kind != Exhausted || told.Reason != NoPortLeft {
		t.Errorf("one more: %v", err)
	}
	if _, err := reserve(t, l, Reservation{Protocol: port.TCP, PID: sleeper(t)}); err != nil {
		t.Errorf("of another process: %v", err)
	}
	l.letGo()
	if len(l.reserved) != 0 {
		t.Errorf("still reserved: %v", l.reserved)
	}
}

// A process that registers a port which it has reserved has it for its instance from
// then on; that of another process is refused.
func TestReservedPortIsRegistered(t *testing.T) {
	l := loopWithStore(t)
	pid := sleeper(t)
	lease, err := reserve(t, l, Reservation{Protocol: port.HTTP, PID: pid})
	if err != nil {
		t.Fatal(err)
	}
	ports := table.Ports{HTTP: lease.Port}
	if _, _, err := registration(t, l, "Thief", sleeper(t), ports); err == nil {
		t.Error("another process has registered it")
	}
	if _, _, err := registration(t, l, "Out", pid, ports); err != nil {
		t.Fatal(err)
	}
	if has, _ := l.ports.Has(lease.Port); has.Instance != "Out" || has.State != port.StateOutside || len(l.reserved) != 0 {
		t.Errorf("the port is %+v, reserved are %v", has, l.reserved)
	}
}
