package client

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"strings"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
	"google.golang.org/grpc/codes"
)

// DefaultTarget is where an agent listens that was not told otherwise.
const DefaultTarget = `\\.\pipe\allexmachinemanager`

// parseTarget takes the name of a pipe.
func parseTarget(target string) (string, error) {
	if !strings.HasPrefix(strings.ToLower(target), `\\.\pipe\`) {
		return "", newError(ErrInvalid, codes.InvalidArgument,
			"the address "+target+" is not that of a named pipe", "write it like "+DefaultTarget)
	}
	return target, nil
}

// connect lets the agent learn who we are, and no more: it can not act in our
// name.
func connect(ctx context.Context, pipe string) (net.Conn, error) {
	return winio.DialPipeAccessImpLevel(ctx, pipe, windows.GENERIC_READ|windows.GENERIC_WRITE,
		winio.PipeImpLevelIdentification)
}

// dialError says in words why nobody could be reached at pipe.
func dialError(pipe string, err error) *Error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return noAgent(pipe, "there is no such pipe")
	case errors.Is(err, fs.ErrPermission):
		return newError(ErrDenied, codes.PermissionDenied, "you may not connect to "+pipe,
			"ask as an administrator or as the agent's user")
	default:
		return newError(ErrUnavailable, codes.Unavailable, "cannot connect to "+pipe+": "+err.Error(), "")
	}
}
