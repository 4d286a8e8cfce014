package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// pipePrefix is how the name of a local pipe begins.
const pipePrefix = `\\.\pipe\`

// Listen makes the named pipe socket, such as \\.\pipe\allexmachinemanager. The
// system, administrators and our own user can open it, nobody else: what a caller
// may do is settled at this door. A name that somebody else has is not taken: a
// pipe's first instance is made exclusively. Every error is a *SocketError.
func Listen(socket string) (net.Listener, error) {
	if !strings.HasPrefix(strings.ToLower(socket), pipePrefix) {
		return nil, &SocketError{Path: socket, UID: -1, Problem: "is not the name of a named pipe",
			Cure: fmt.Sprintf(`set "socket" in the agent's configuration to a name that begins with %s`, pipePrefix)}
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, &SocketError{Path: socket, UID: -1, Problem: "our own user is not known", Cure: "start the agent as another user", Err: err}
	}
	l, err := winio.ListenPipe(socket, &winio.PipeConfig{
		SecurityDescriptor: fmt.Sprintf("D:P(A;;GA;;;SY)(A;;GA;;;BA)(A;;GRGW;;;%s)", user.User.Sid),
	})
	if err != nil {
		return nil, &SocketError{Path: socket, UID: -1, Problem: "can not be made",
			Cure: "end the program that has it, if there is one, or " + elsewhere, Err: err}
	}
	return l, nil
}

// Files refuses: no program becomes another one here.
func Files(net.Listener) (socket, lock syscall.Conn, err error) {
	return nil, nil, errors.ErrUnsupported
}

// Keep has nothing to keep.
func Keep(net.Listener) {}

// Inherit refuses.
func Inherit(string, *os.File, *os.File) (net.Listener, error) { return nil, errors.ErrUnsupported }
