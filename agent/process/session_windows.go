package process

import "syscall"

const isWindows = true

// ownSession detaches a child from the agent's console events.
func ownSession() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
