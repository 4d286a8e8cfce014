// Package process is the mechanism for one process: start it, know of its
// death, end what is left of its tree, reap it, or take it over from an agent
// before this one. It has no policy: when to start, stop or try again is
// decided in package agent. Besides agent, agent/state imports it for Identity
// and server for the words State and Exit.
//
// A Process owns one descriptor, the pidfd, and no goroutine and no thread:
// whoever calls AwaitEnd waits in the runtime's poller. The end of a process is
// taken in one order (design section 4.5): AwaitEnd, then Empty, then Reap. The
// leader stays a zombie until Reap, so that its pid and the id of its session
// belong to nobody else until the tree is gone.
//
// Linux is where this runs. On other systems the package builds and starts
// children; what it can not do there with certainty it refuses with
// errors.ErrUnsupported.
package process

import (
	"errors"
	"fmt"
)

// Spec says what to start.
type Spec struct {
	Instance  string   // for messages only
	Argv      []string // Argv[0] is the absolute path of the executable
	Env       []string // all of it; nothing is inherited
	Directory string   // working directory; "" that of the agent
	Log       string   // output and errors are appended to this file, created 0640; "" discards them
	Cgroup    string   // absolute directory of the instance's own cgroup, made by Start below an existing root; "" none
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

var (
	// ErrGone: the process is not there, or its pid is another process by now.
	ErrGone = errors.New("the process is gone")
	// ErrClosed: Close was called on the Process.
	ErrClosed = errors.New("the process has been let go")
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
