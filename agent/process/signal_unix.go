//go:build unix

package process

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ParseSignal returns the signal of a name such as "SIGTERM".
func ParseSignal(name string) (syscall.Signal, error) {
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, unknownSignal(name, func(s string) bool { return unix.SignalNum(s) != 0 })
}

// signalName is the inverse of ParseSignal; a signal without a name (a
// real-time one) is its number.
func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return strconv.Itoa(int(sig))
}
