//go:build unix

package process

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Exists tells whether there is a process of that pid now, be it a zombie.
func Exists(pid int) bool {
	return pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}
