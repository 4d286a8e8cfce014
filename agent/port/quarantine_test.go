package port

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/lan/table"
)

// restful makes an office with size ports a protocol in which a port rests for
// a minute after its release.
func restful(t *testing.T, size int) (o *Office, first int) {
	t.Helper()
	o, first = office(t, size)
	o.quarantine.rest = time.Minute
	return o, first
}

func leaseTCP(t *testing.T, o *Office, instance string, fixed, preferred int) int {
	t.Helper()
	return mustLease(t, o, Request{Instance: instance, Protocols: []Protocol{TCP},
		Fixed: table.Ports{TCP: fixed}, Preferred: table.Ports{TCP: preferred}}).TCP
}

func TestQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, first := restful(t, 3)
		leaseTCP(t, o, "a", 0, 0)
		o.Release("a")

		want := []Lease{{TCP, first, "a", StateQuarantined}}
		if diff := cmp.Diff(want, o.All()); diff != "" {
			t.Errorf("after the release (-want +got):\n%s", diff)
		}
		if got := leaseTCP(t, o, "b", 0, first); got != first+1 {
			t.Errorf("another instance has port %d, want %d: %d rests", got, first+1, first)
		}
		if got := leaseTCP(t, o, "a", 0, 0); got != first {
			t.Errorf("the instance itself has port %d, want its own %d", got, first)
		}

		o.Release("a")
		time.Sleep(time.Minute - 1)
		if got := leaseTCP(t, o, "c", 0, first); got != first+2 {
			t.Errorf("within the minute another instance has port %d, want %d", got, first+2)
		}
		time.Sleep(1)
		if got := leaseTCP(t, o, "d", 0, 0); got != first {
			t.Errorf("after the minute another instance has port %d, want %d", got, first)
		}
	})
}

// A need that asks for a port gets it, and where nothing else is free the port
// that has rested longest is better than none.
func TestQuarantineYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, first := restful(t, 2)
		leaseTCP(t, o, "a", 0, 0)
		leaseTCP(t, o, "b", 0, 0)
		o.Release("b")
		time.Sleep(time.Second)
		o.Release("a")
		if got := leaseTCP(t, o, "c", 0, 0); got != first+1 {
			t.Errorf("in a full range port %d, want %d, which has rested longest", got, first+1)
		}
		if got := leaseTCP(t, o, "d", first, 0); got != first {
			t.Errorf("the fixed port is %d, want %d", got, first)
		}
		if got := o.All(); len(got) != 2 || got[0].State == StateQuarantined || got[1].State == StateQuarantined {
			t.Errorf("leases %+v, want the two that are held", got)
		}
	})
}

// What was not leased in the end, and what the office did not choose, does not
// rest; a second release begins the rest anew.
func TestQuarantineOfWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, first := restful(t, 2)
		stranger(t, first+2)
		stranger(t, first+3) // so there is no http port
		if _, err := o.Lease(Request{Instance: "a", Protocols: []Protocol{TCP, HTTP}, Mode: Reserved}); err == nil {
			t.Error("there was an http port")
		}
		if err := o.Outside("o", table.Ports{TCP: first}); err != nil {
			t.Fatal(err)
		}
		o.Release("o")
		if got := o.All(); len(got) != 0 {
			t.Errorf("leases %+v, want none", got)
		}

		leaseTCP(t, o, "b", 0, 0)
		o.Release("b")
		time.Sleep(30 * time.Second)
		leaseTCP(t, o, "b", 0, 0)
		o.Release("b")
		time.Sleep(59 * time.Second)
		if got := o.All(); len(got) != 1 {
			t.Errorf("leases %+v, want the one that rests", got)
		}
		time.Sleep(time.Second)
		if got := o.All(); len(got) != 0 || len(o.quarantine.byPort) != 0 || len(o.quarantine.queue) != 0 {
			t.Errorf("after a minute: %+v, %+v", got, o.quarantine)
		}
	})
}

// Nobody gets a stolen port for a while, not even the instance that had it, be it
// that other ports do not rest.
func TestStolenRests(t *testing.T) {
	for _, rest := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			o, first := office(t, 3)
			o.quarantine.rest = rest
			leaseTCP(t, o, "a", 0, 0)
			o.Stolen("b", first) // not its port
			o.Stolen("a", first)
			o.Release("a")
			if diff := cmp.Diff([]Lease{{TCP, first, "a", StateQuarantined}}, o.All()); diff != "" {
				t.Errorf("after the release (-want +got):\n%s", diff)
			}
			for n, instance := range []string{"a", "b"} {
				if got := leaseTCP(t, o, instance, 0, first); got != first+1+n {
					t.Errorf("%s has port %d, want %d", instance, got, first+1+n)
				}
			}
			time.Sleep(max(rest, stolenRest))
			if got := leaseTCP(t, o, "c", 0, 0); got != first {
				t.Errorf("after its rest it is not to be had: %d", got)
			}
		})
	}
}
