package port

import (
	"maps"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/lan/table"
)

// shelf is a depot; it keeps a socket as its inode.
type shelf map[int]uint64

func (s shelf) Put(port, fd int) { s[port] = socket(fd).inode() }
func (s shelf) Drop(port int)    { delete(s, port) }

// A depot has what is passed on, for as long as it is, and keeps it when the office
// closes.
func TestDepot(t *testing.T) {
	o, p := office(t, 3)
	kept := shelf{}
	o.Deposit(kept)
	has := func(ports ...int) {
		t.Helper()
		want := shelf{}
		for _, number := range ports {
			want[number] = o.Inode(number)
		}
		if !maps.Equal(kept, want) {
			t.Errorf("it has %v, want %v", kept, want)
		}
	}
	mustLease(t, o, Request{Instance: "reserved", Protocols: []Protocol{TCP}, Mode: Reserved})
	has()
	mustLease(t, o, Request{Instance: "a", Protocols: []Protocol{TCP, HTTP}, Mode: Passed})
	has(p+1, p+3)
	o.Keep("a")
	has(p+1, p+3)
	o.LetGo("a")
	has()
	o.Release("a")
	mustLease(t, o, Request{Instance: "b", Protocols: []Protocol{WS}, Mode: Passed})
	has(p + 6)
	socket := o.Inode(p + 6)
	duplicates := o.Duplicates()
	duplicates[p].Close()
	inherited := duplicates[p+6]
	o.Close()
	if kept[p+6] != socket {
		t.Errorf("after the office has closed it has %v", kept)
	}

	// The next office gives what nobody has any more away.
	next := NewOffice(Range{Start: p, Size: 3}, Range{Start: p + 3, Size: 3}, Range{Start: p + 6, Size: 3}, 0)
	defer next.Close()
	next.Deposit(kept)
	kept[p+7] = 1
	stray, err := hold(p + 7)
	if err != nil {
		t.Fatal(err)
	}
	next.Inherit(map[int]*os.File{p + 6: inherited, p + 7: os.NewFile(uintptr(stray), "stray")})
	if err := next.Adopt("b", table.Ports{TCP: p, WS: p + 6}); err != nil {
		t.Fatal(err)
	}
	if missing := next.Reuse("b"); len(missing) != 1 || missing[0] != p || next.Inode(p+6) != socket {
		t.Errorf("it misses %v, and goes on with socket %d, not %d", missing, next.Inode(p+6), socket)
	}
	next.Settle()
	if !maps.Equal(kept, shelf{p + 6: socket}) {
		t.Errorf("it has %v", kept)
	}
	if fd, err := unix.Dup(next.Sockets("b")[0].FD); err != nil {
		t.Error(err)
	} else {
		next.Regain("b", p+6, fd) // not adopted any more: what comes late changes nothing
	}
	next.Release("b")
	if len(kept) != 0 {
		t.Errorf("after the release it has %v", kept)
	}
}
