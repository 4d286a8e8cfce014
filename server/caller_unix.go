//go:build linux || darwin

package server

import (
	"fmt"
	"net"
	"syscall"
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
