//go:build linux || darwin

package server

import (
	"fmt"
	"math"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// identify asks the kernel who called connect on the other end of c.
func identify(c net.Conn) (*caller, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T is not a socket", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var who *caller
	if e := raw.Control(func(fd uintptr) { who, err = identifyFD(int(fd)) }); e != nil {
		return nil, e
	}
	return who, err
}

// mostDescriptors is how many this process may have, as far as that is known.
func mostDescriptors() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt
	}
	return int(min(limit.Cur, math.MaxInt))
}
