//go:build !windows

package client

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// DefaultTarget is where an agent listens that was not told otherwise.
const DefaultTarget = "unix:/tmp/allexmachinemanager"

// parseTarget makes the path of a socket of unix:/path, unix:///path or a
// plain path.
func parseTarget(target string) (string, error) {
	path, ok := strings.CutPrefix(target, "unix:")
	if ok {
		path = strings.TrimPrefix(path, "//")
	}
	if (ok && path == "") || (!ok && !strings.HasPrefix(target, "/")) {
		return "", newError(ErrInvalid, codes.InvalidArgument,
			"the address "+target+" is not that of a Unix socket", "write it like "+DefaultTarget)
	}
	return path, nil
}

func connect(ctx context.Context, path string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", path)
}

// dialError says in words why nobody could be reached at path.
func dialError(path string, err error) *Error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return noAgent(path, "there is no such socket")
	case errors.Is(err, unix.ECONNREFUSED):
		if info, err := os.Stat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
			return noAgent(path, "that is not a socket")
		}
		return noAgent(path, "nobody listens on that socket")
	case errors.Is(err, fs.ErrPermission):
		return newError(ErrDenied, codes.PermissionDenied, "you may not connect to "+path,
			"ask as root or as the agent's user")
	case errors.Is(err, unix.EAGAIN):
		return newError(ErrUnavailable, codes.Unavailable, "the agent at "+path+" takes no more connections",
			"see in its log what holds it up")
	default:
		return newError(ErrUnavailable, codes.Unavailable, "cannot connect to "+path+": "+cause(err).Error(), "")
	}
}

// cause leaves out of an error of net what it repeats of the address.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
