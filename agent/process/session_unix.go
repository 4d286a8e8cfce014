//go:build unix && !linux

package process

import "syscall"

const isWindows = false

// ownSession detaches a child from the agent's terminal and group.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
