//go:build unix

package state

import (
	"fmt"
	"os"
	"syscall"
)

// checkOwner refuses a directory in which others could leave records: the agent
// would take over, and some day kill, whatever they name.
func checkOwner(dir string, uid int) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("everybody may write into %s; name another directory, or take the right away with chmod o-w", dir)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != uid {
		return &OwnerError{dir, int(stat.Uid), uid}
	}
	return nil
}
