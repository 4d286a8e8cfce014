//go:build !linux

package handover

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// Handover is what one program hands to the next: nothing, on this system.
type Handover struct{ Note }

// New refuses.
func New(Note) (*Handover, error) {
	return nil, fmt.Errorf("no program becomes another one on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Take finds nothing.
func Take() (*Handover, error) { return nil, nil }

// Add refuses.
func (h *Handover) Add(string, syscall.Conn) error { return errors.ErrUnsupported }

// Exec refuses.
func (h *Handover) Exec(string) error { return errors.ErrUnsupported }

// Unless does nothing.
func (h *Handover) Unless(func() bool) {}

// Back returns.
func (h *Handover) Back(error) {}

// File is nil.
func (h *Handover) File(string) *os.File { return nil }

// Names are none.
func (h *Handover) Names() []string { return nil }

// Ready does nothing.
func (h *Handover) Ready() {}
