// Package port is the port office: it leases the ports of the three protocols
// tcp, http and ws to instances, so that a port has at most one holder and no
// other program can take it meanwhile (design section 6, "Ports").
//
// A lease is more than a note: where the operating system allows it, the office
// holds the port with a socket that is bound and does not listen. A connect to it
// is refused, a stranger can not bind it, the instance's own server can.
//
// The agent's loop owns the one Office of a machine; an Office is not safe for
// concurrent use. The rooms of agent, server and cmd may import this package.
package port

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/allexgo/machine-agent/lan/table"
)

// Protocol is one of the three that a service may speak.
type Protocol int

const (
	TCP Protocol = iota + 1
	HTTP
	WS
)

// protocols is how many there are; their values are 1 to protocols.
const protocols = 3

var protocolNames = [...]string{TCP: "tcp", HTTP: "http", WS: "ws"}

// String is the protocol's name as configuration and catalogue spell it.
func (p Protocol) String() string { return nameOf(protocolNames[:], int(p)) }

// ParseProtocol is the inverse of Protocol.String.
func ParseProtocol(name string) (Protocol, error) {
	n, err := parse("protocol", protocolNames[:], name)
	return Protocol(n), err
}

// Range is the ports from Start to Start+Size-1, out of which one protocol is served.
type Range struct {
	Protocol    Protocol
	Start, Size int
}

// String is like "http 16000-16999".
func (r Range) String() string { return fmt.Sprintf("%s %d-%d", r.Protocol, r.Start, r.last()) }

// last is the highest port of the range.
func (r Range) last() int { return min(r.Start+r.Size-1, maxPort) }

const maxPort = 65535

// Mode is how a port is held for a process that the agent starts.
type Mode int

const (
	Reserved Mode = iota + 1 // with a socket, for as long as the lease lasts
	Released                 // with a socket up to Office.LetGo
	Passed                   // with a socket that listens and that the process gets
)

var modeNames = [...]string{Reserved: "reserved", Released: "released", Passed: "passed"}

// String is the mode's name as the catalogue spells it.
func (m Mode) String() string { return nameOf(modeNames[:], int(m)) }

// ParseMode is the inverse of Mode.String.
func ParseMode(name string) (Mode, error) {
	n, err := parse("port mode", modeNames[:], name)
	return Mode(n), err
}

// State is what is known of a leased port.
type State int

const (
	StateReserved    State = iota + 1 // the office chose it; its process is not ready
	StateListening                    // its process is ready on it
	StateAdopted                      // it came with a process of an earlier agent
	StateOutside                      // a process opened it by itself and said so
	StateQuarantined                  // it was released a moment ago and goes to no other instance
	StateKept                         // its process has ended; the next one gets the socket, which listens
)

var stateNames = [...]string{
	StateReserved: "reserved", StateListening: "listening",
	StateAdopted: "adopted", StateOutside: "outside", StateQuarantined: "quarantined",
	StateKept: "kept",
}

// String is the state in lower case.
func (s State) String() string { return nameOf(stateNames[:], int(s)) }

// Lease is one port that is held for one instance; a snapshot.
type Lease struct {
	Protocol Protocol
	Port     int
	Instance string
	State    State
}

// Request asks for one port of each protocol in Protocols.
type Request struct {
	Instance  string
	Protocols []Protocol
	Mode      Mode
	// Fixed ports must be had exactly; they may lie outside of the ranges.
	Fixed table.Ports
	// Preferred ports are tried first, if they lie in their protocol's range.
	Preferred table.Ports
}

// ErrNotAPort is wrapped by errors about a number that no port can have.
var ErrNotAPort = errors.New("ports are 1 to 65535")

// TakenError says that one certain port can not be had.
type TakenError struct {
	Protocol Protocol
	Port     int
	Holder   string // the instance that has it; empty: a program that is none of ours
	Twice    bool   // the same request has it for another protocol
	Silent   bool   // nobody listens on it, and still a program without SO_REUSEADDR can not have it
}

func (e *TakenError) Error() string {
	if e.Twice {
		return fmt.Sprintf("%s port %d is wanted for another protocol, too; give each of them its own", e.Protocol, e.Port)
	}
	if e.Holder != "" {
		return fmt.Sprintf("%s port %d is leased to instance %q; stop that one, or ask for another port",
			e.Protocol, e.Port, e.Holder)
	}
	if e.Silent {
		return fmt.Sprintf("%s port %d has had connections that ended less than a minute ago (TIME_WAIT), or a program has bound it and does not listen;"+
			" wait, or have the program set SO_REUSEADDR and leave out portmode", e.Protocol, e.Port)
	}
	return fmt.Sprintf("%s port %d is held by another program of this machine; end that one, or ask for another port",
		e.Protocol, e.Port)
}

// ExhaustedError says that a range has no port left.
type ExhaustedError struct {
	Range     Range
	Leased    int      // ports of the range that are leased
	Strangers int      // ports of the range that other programs hold
	Holders   []string // the first few instances with a port of the range, by port
}

// maxHolders is how many instances an ExhaustedError names.
const maxHolders = 5

func (e *ExhaustedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "no port is free in the range %s: %d of %d leased", e.Range, e.Leased, e.Range.Size)
	for i, h := range e.Holders {
		b.WriteString([...]string{" to ", ", "}[min(i, 1)] + strconv.Quote(h))
	}
	if len(e.Holders) == maxHolders && e.Leased > maxHolders {
		b.WriteString(" and others")
	}
	fmt.Fprintf(&b, ", %d held by other programs; stop what is not needed,"+
		" or raise portrangesize or move portrangestart.%s in the agent's configuration", e.Strangers, e.Range.Protocol)
	return b.String()
}

// nameOf looks a value of one of this package's enumerations up in its names.
func nameOf(names []string, n int) string {
	if n > 0 && n < len(names) {
		return names[n]
	}
	return "unknown(" + strconv.Itoa(n) + ")"
}

// parse is the inverse of nameOf; kind is for the error.
func parse(kind string, names []string, name string) (int, error) {
	for n := 1; n < len(names); n++ {
		if names[n] == name {
			return n, nil
		}
	}
	return 0, fmt.Errorf("unknown %s %q: allowed are %s", kind, name, strings.Join(names[1:], ", "))
}
