package server

import (
	"fmt"
	"strings"
)

// SocketError says why a socket was not taken.
type SocketError struct {
	Path    string
	PID     int    // of the process that has it; 0: not known, or none
	UID     int    // its owner; -1: not known
	Problem string // what is the matter with it
	Cure    string // what to do
	Err     error  // of the operating system; nil if there was none

	passing bool // who has it is gone, or has not said yet who it is
}

func (e *SocketError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "socket %s: %s", e.Path, e.Problem)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	fmt.Fprintf(&b, "; %s", e.Cure)
	return b.String()
}

// Unwrap returns Err.
func (e *SocketError) Unwrap() error { return e.Err }

// elsewhere is the cure that always works.
const elsewhere = `set "socket" in the agent's configuration to another path`
