//go:build !linux

package notify

import (
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"
)

// Socket is not there on these systems.
type Socket struct{ *office }

// Listen is not possible: nothing tells for certain who sends.
func Listen(string, hclog.Logger) (*Socket, error) {
	return nil, fmt.Errorf("a notify socket on this operating system: %w", errors.ErrUnsupported)
}

// Path is empty.
func (s *Socket) Path() string { return "" }

// Serve has nothing to deliver.
func (s *Socket) Serve() {}

// Catch has nothing to deliver.
func (s *Socket) Catch() {}

// Close has nothing to close.
func (s *Socket) Close() error { return nil }
