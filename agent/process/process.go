// Package process is the mechanism for one process: start it, know of its
// death, end what is left of its tree, reap it, or take it over from an agent
// before this one. It has no policy: when to start, stop or try again is
// decided in package agent. Besides agent, agent/state imports it for Identity,
// agent/link for Exit, and server for the words State and Exit.
//
// A Process owns one descriptor, the pidfd, or two if another than its leader is the
// main one (Process.Follow), and no goroutine and no thread:
// whoever calls AwaitEnd waits in the runtime's poller. The end of a process is
// taken in one order (design section 4.5): AwaitEnd, then Empty, then Reap; how it
// was, Seen tells from the first of them on. The leader stays a zombie until
// Reap, so that its pid and the id of its session belong to nobody else until
// the tree is gone. If another process of the tree is the main one (Follow), its end
// is meant, and Empty ends also a leader that lives.
//
// Linux is where this runs. On other systems the package builds and starts
// children; what it can not do there with certainty it refuses with
// errors.ErrUnsupported.
package process

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/allexgo/machine-agent/agent/process/launch"
)

// Spec says what to start.
type Spec struct {
	Instance  string   // for messages only
	Argv      []string // Argv[0] is the absolute path of the executable
	Env       []string // all of it; nothing is inherited
	Directory string   // working directory; "" that of the agent
	Log       string   // output and errors are appended to this file, created 0640; "" discards them
	Output    *os.File // instead of Log; nil: Log
	Cgroup    string   // absolute directory of the instance's own cgroup, made by Start below an existing root; "" none

	// What follows is for Linux; elsewhere it is refused.
	User     *User              // whom it runs as; nil: as the agent
	Limits   Limits             // of itself; its children inherit them
	SHA256   *[sha256.Size]byte // of the executable, an ELF file; nothing else is started. nil: not looked at
	Sockets  []Socket           // that listen and that it gets, from descriptor 3 on
	Launcher string             // absolute path of agentexec, which Sockets and Limits of the process itself need
}

// Socket is one that a process gets. The caller has the descriptor open until
// Start returns.
type Socket struct {
	Name string // in LISTEN_FDNAMES; without a colon
	FD   int
}

// User is an account that a process runs as.
type User = launch.User

// Resource is a limit of the kernel on one process (setrlimit(2)).
type Resource = launch.Resource

// Limits bound a process. The zero value bounds nothing.
type Limits struct {
	Resources map[string]Resource // by the names of launch.Resources
	Nice      *int                // -20 to 19
	Umask     *int
	OOMScore  *int // -1000 to 1000: whom the kernel ends first when memory runs out

	// Of the process and all that it starts, together: limits of its cgroup, each
	// by a controller of that name. 0 is none.
	Memory int64   // bytes
	CPU    float64 // processors, such as 0.5
	PIDs   int64   // processes and threads
}

// Controllers are the names of those that a cgroup needs for the limits.
func (l Limits) Controllers() []string {
	var all []string
	for _, c := range []struct {
		name   string
		needed bool
	}{{"memory", l.Memory != 0}, {"cpu", l.CPU != 0}, {"pids", l.PIDs != 0}} {
		if c.needed {
			all = append(all, c.name)
		}
	}
	return all
}

// none tells whether there are no limits that the launcher has to set.
func (l Limits) none() bool {
	return len(l.Resources) == 0 && l.Nice == nil && l.Umask == nil && l.OOMScore == nil
}

// Identity is what makes a process certain across restarts of the agent: a pid
// alone is used again, a pid with its start time within one boot is not.
type Identity struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"starttime"`        // clock ticks since boot: field 22 of /proc/pid/stat; 0 where unknown
	BootID    string `json:"bootid"`           // of the kernel; "" where unknown
	Cgroup    string `json:"cgroup,omitempty"` // absolute directory; "" none
}

// Exit is how a process ended: by exit with Code, by Signal, or in a way that
// nobody saw. It never says code 0 for want of knowledge.
type Exit struct {
	Code    int    `json:"code"`
	Signal  string `json:"signal,omitempty"` // "SIGKILL", or the number of a signal without a name
	Unknown bool   `json:"unknown,omitempty"`
}

func (e Exit) String() string {
	switch {
	case e.Unknown:
		return "exit status unknown"
	case e.Signal != "":
		return "signal " + e.Signal
	default:
		return fmt.Sprintf("exit code %d", e.Code)
	}
}

// Covering are those of the sockets that a connection to an address and their
// port would meet: that of the very address, else those of all addresses.
func Covering(sockets []Listener, host netip.Addr) []Listener {
	var exact, all []Listener
	for _, s := range sockets {
		switch a := s.Address.Addr().Unmap(); {
		case a == host.Unmap():
			exact = append(exact, s)
		case a.IsUnspecified():
			all = append(all, s)
		}
	}
	if len(exact) > 0 {
		return exact
	}
	return all
}

// LimitOfFiles is the problem of a StartError if the agent has as many descriptors as
// it may have.
const LimitOfFiles = "the limit of open files is reached"

var (
	// ErrGone: the process is not there, or its pid is another process by now.
	ErrGone = errors.New("the process is gone")
	// ErrClosed: Close was called on the Process.
	ErrClosed = errors.New("the process has been let go")
	// ErrWrongChecksum: the executable is not the one of a Spec.
	ErrWrongChecksum = errors.New("the executable has another checksum")
	// ErrOccupied: there are still processes in the cgroup of a Spec.
	ErrOccupied = errors.New("the cgroup still has processes in it")
)

// StartError tells why a command could not be started. It unwraps to the
// operating system's error.
type StartError struct {
	Instance string
	Command  string
	Problem  string // what is wrong with what
	Cure     string // what to do; "" where nothing better is known than the problem
	Err      error
}

func (e *StartError) Error() string {
	s := fmt.Sprintf("instance %q: can not start %s: %s", e.Instance, e.Command, e.Problem)
	if e.Cure != "" {
		s += "; " + e.Cure
	}
	return s
}

func (e *StartError) Unwrap() error { return e.Err }
