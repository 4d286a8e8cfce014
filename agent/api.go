package agent

import (
	"fmt"
	"time"

	"github.com/allexgo/machine-agent/agent/journal"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
)

// Process is what the agent tells of one instance: the live process, or, when
// there is none, how the last one ended. It is a snapshot and never changes.
type Process struct {
	Instance     string
	Module       string // empty for an outside process without one
	State        process.State
	Place        Place // None unless the process lives
	Origin       Origin
	PID          int       // 0 before the start and after the end
	StartTime    time.Time // zero before the start
	Ports        table.Ports
	StatusText   string
	Held         bool
	Failures     int       // ends in a row without a healthy while
	FailingSince time.Time // the first of them; zero: there are none
	CrashLoop    bool      // there are so many that it will not do without help
	BackoffUntil time.Time // zero: no wait
	LastExit     *process.Exit
	LastReason   string
	LogFile      string // empty for an outside process
	Reason       string // why it is withdrawn or made to end; empty while it is neither
	Outdated     bool   // its module is another one now than when it was started
}

// Origin is how the agent came to have a process.
type Origin int

const (
	Started Origin = iota + 1 // by this agent
	Adopted                   // started by an agent before this one
	Outside                   // started by somebody else and registered
)

// List is all there was of a kind at a place in the order of changes. Who reads
// the changes behind that place misses none.
type List[T any] struct {
	At    journal.Position
	Items []T
}

// NeedDecision is a need and what this agent made of it. For a hold without a
// need only Need.InstanceName is set.
type NeedDecision struct {
	Need     table.Need
	Decision Decision
	Detail   string    // why, and what would help
	ServedAt string    // the address of the machine that serves it, if one does
	Retry    time.Time // when the agent looks again by itself; zero: at an event
}

// PortLease is a lease of the port office with the process that has it.
type PortLease struct {
	port.Lease
	PID      int // 0 while there is none
	Listener Listener
	Detail   string // what is wrong with it; empty if nothing is
}

// Listener is who listens on a leased port.
type Listener int

const (
	ListenerNobody   Listener = iota + 1
	ListenerOurs              // a process of the instance's tree, or ourselves with the socket that it gets
	ListenerStranger          // some other program
	ListenerUnknown           // the operating system does not tell
)

// Status is the agent's own state.
type Status struct {
	Version      string
	Name         string // of the machine, for people
	PID          int
	StartTime    time.Time
	Link         LinkStatus
	Processes    int // outside ones included
	MaxProcesses int // 0: no limit
	OpenNeeds    int
	Services     int // of the whole LAN
	ServedHere   int
	Cgroups      bool    // every child has a cgroup of its own
	Drained      bool    // nothing is served here until Resume
	Upgrade      Upgrade // the last one; zero if there was none
	Warnings     []string
	Directory    string   // where its configuration is
	CrashLoops   []string // instances, the first of them by name
	Looping      int      // how many there are
}

// Upgrade is how an agent became another one in place.
type Upgrade struct {
	ID      string    // of who asked for it
	From    string    // the version before
	Time    time.Time // when it was done
	Problem string    // why the one that should have come is not here; empty if it is
}

// LinkStatus is the state of the link to the LAN manager.
type LinkStatus struct {
	Connected  bool
	LANManager string // host:port; empty before the first session
	SeenAs     string // the address under which the LAN manager sees us
	Since      time.Time
	Problem    string // empty while connected
	Kind       LANManagerKind
}

// LANManagerKind is whose program the LAN manager is; zero: it has not shown that.
type LANManagerKind int

const (
	OfThisProject LANManagerKind = iota + 1
	Original                     // as a rule; it does not understand what this project adds
)

// Owner is the instance of ours that a local process belongs to.
type Owner struct {
	Instance string // empty: the process is not part of one
	Operator bool   // its module lets it act as an operator
}

// Registration is what RegisterProcess says, with what is known of the caller.
type Registration struct {
	Instance   string // may be empty if Caller is one of ours
	PID        int    // 0: the caller itself
	Module     string // for outside processes
	Ports      table.Ports
	StatusText string

	CallerPID  int
	CallerUID  int    // -1 if the operating system does not tell
	Caller     string // the instance of ours that the caller is in; empty: none
	Privileged bool   // root or the agent's own user, or an operator module
}

// Kind is the class of an Error; the set is closed.
type Kind int

const (
	Invalid     Kind = iota + 1 // the request itself is wrong
	NotFound                    // what it names does not exist
	Exists                      // another one has that name
	Denied                      // this caller may not
	WrongState                  // it can not be done to it now
	Exhausted                   // no room left; may work later
	Unavailable                 // somebody who is needed is not there; may work later
	Compacted                   // what it asks for is not kept any more
	CutOff                      // the caller did not keep up; may work later
)

// Reason is the name of an Error for programs; the values are those of
// ErrorReason in proto/machineagent/v1/error.proto. Invalid errors have none,
// they name a Field.
type Reason string

const (
	InstanceNotFound  Reason = "INSTANCE_NOT_FOUND"
	PIDNotFound       Reason = "PID_NOT_FOUND"
	InstanceTaken     Reason = "INSTANCE_TAKEN"
	CallerNotAllowed  Reason = "CALLER_NOT_ALLOWED"
	PortNotListening  Reason = "PORT_NOT_LISTENING"
	OutsideProcess    Reason = "OUTSIDE_PROCESS"
	NoLANManager      Reason = "NO_LAN_MANAGER"
	LANManagerRefused Reason = "LAN_MANAGER_REFUSED"
	NotRunning        Reason = "NOT_RUNNING"
	ShuttingDown      Reason = "SHUTTING_DOWN"
	NotNeeded         Reason = "NOT_NEEDED"
	InstanceHeld      Reason = "INSTANCE_HELD"
	RevisionCompacted Reason = "REVISION_COMPACTED"
	SlowConsumer      Reason = "SLOW_CONSUMER"
	TooManyWatches    Reason = "TOO_MANY_WATCHES"
	TooManyReaders    Reason = "TOO_MANY_READERS"
	UpgradeRefused    Reason = "UPGRADE_REFUSED"
	ServiceNotFound   Reason = "SERVICE_NOT_FOUND"
	PortTaken         Reason = "PORT_TAKEN"
	NoPortLeft        Reason = "NO_PORT_LEFT"
	PortNotReserved   Reason = "PORT_NOT_RESERVED"
	FilesInvalid      Reason = "FILES_INVALID"
	NotCatalogued     Reason = "NOT_CATALOGUED"
)

// Error is an error of the agent that its caller can act on.
type Error struct {
	Kind     Kind
	Reason   Reason
	Field    string // of the request, in proto spelling; for Invalid
	Message  string // what happened, to what, and what to do
	Metadata map[string]string
}

func (e *Error) Error() string { return e.Message }

func notFound(instance string) *Error {
	return &Error{Kind: NotFound, Reason: InstanceNotFound,
		Message:  fmt.Sprintf("there is no instance %q on this machine; `agentctl ps` and `agentctl needs` show those that there are", instance),
		Metadata: map[string]string{"instance": instance}}
}

func invalid(field, format string, args ...any) *Error {
	return &Error{Kind: Invalid, Field: field, Message: field + ": " + fmt.Sprintf(format, args...)}
}
