package server

import (
	"fmt"
	"net"

	"golang.org/x/sys/windows"
)

// pin is left out: the process of a pipe's client is known by its number only.
type pin struct{}

func (*pin) gone() bool { return false }
func (*pin) release()   {}

// identify asks the system which process opened the other end of the pipe. Its
// user needs no question: the pipe's access list admits operators only (Listen).
func identify(c net.Conn) (*caller, error) {
	pipe, ok := c.(interface{ Fd() uintptr })
	if !ok {
		return nil, fmt.Errorf("a %T is not a named pipe", c)
	}
	var pid uint32
	if err := windows.GetNamedPipeClientProcessId(windows.Handle(pipe.Fd()), &pid); err != nil {
		return nil, fmt.Errorf("GetNamedPipeClientProcessId: %w", err)
	}
	return &caller{pid: int(pid), uid: -1, trusted: true}, nil
}

// mostDescriptors is how many handles this process may have: more than it needs.
func mostDescriptors() int { return 1 << 24 }
