//go:build !linux && !darwin && !windows

package server

import "net"

// pin is not to be had on this system.
type pin struct{}

func (*pin) gone() bool { return false }
func (*pin) release()   {}

// identify knows nobody on this system: every caller may read, none may change
// anything.
func identify(net.Conn) (*caller, error) { return &caller{uid: -1}, nil }
