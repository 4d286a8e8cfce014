//go:build !linux

package notify

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/hashicorp/go-hclog"
)

// Socket is not there on these systems.
type Socket struct{ *office }

// Listen is not possible: nothing tells for certain who sends.
func Listen(string, hclog.Logger) (*Socket, error) {
	return nil, fmt.Errorf("a notify socket on this operating system: %w", errors.ErrUnsupported)
}

// Conn is nil: there is nothing to inherit.
func (s *Socket) Conn() syscall.Conn { return nil }

// Keep has nothing to keep.
func (s *Socket) Keep() {}

// Inherit is not possible either.
func Inherit(path string, _ *os.File, log hclog.Logger) (*Socket, error) { return Listen(path, log) }

// Path is empty.
func (s *Socket) Path() string { return "" }

// Serve has nothing to deliver.
func (s *Socket) Serve() {}

// Catch has nothing to deliver.
func (s *Socket) Catch() {}

// Close has nothing to close.
func (s *Socket) Close() error { return nil }
