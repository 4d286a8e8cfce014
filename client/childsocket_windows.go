package client

import (
	"errors"
	"net"
)

// listenPrivate does nothing: no agent supervises children on Windows yet.
func listenPrivate(string) (net.Listener, error) { return nil, errors.ErrUnsupported }
