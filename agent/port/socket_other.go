//go:build !linux

package port

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// socket holds nothing here. On Windows SO_REUSEADDR lets anybody take a port
// over and SO_EXCLUSIVEADDRUSE nobody, not even the instance; on the BSDs and
// macOS a second bind to the same address is refused whatever SO_REUSEADDR says.
// So a lease is what the books say, and a bind when it was chosen.
type socket int

const none socket = -1

// hold tries whether the port can be had now.
func hold(number int) (socket, error) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: number})
	if err != nil {
		return none, err
	}
	return none, l.Close()
}

// holdAlone is hold.
func holdAlone(number int) (socket, error) { return hold(number) }

// listen is not for a socket that is none.
func (socket) listen() error { return errors.ErrUnsupported }

func (socket) inode() uint64 { return 0 }

func (socket) close() {}

func (socket) dup() *os.File { return nil }

func socketOf(f *os.File) socket {
	f.Close()
	return none
}

// The codes of Windows for a port that another program has, and for one that the
// system keeps for another program.
const (
	wsaeaddrinuse = syscall.Errno(10048)
	wsaeacces     = syscall.Errno(10013)
)

// inUse tells whether hold failed because another program has the port.
func inUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, wsaeaddrinuse) || errors.Is(err, wsaeacces)
}
