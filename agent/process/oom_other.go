//go:build !linux

package process

import "errors"

// KernelLog knows nothing on this system.
type KernelLog struct{}

// OpenKernelLog is refused.
func OpenKernelLog() (*KernelLog, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (l *KernelLog) Close() {}

// OutOfMemory knows nothing.
func (l *KernelLog) OutOfMemory(int) string { return "" }
