// Package disk says what to do about a disk that does not take what is written. Any
// room may import it.
package disk

import (
	"errors"
	"syscall"
)

// Cure is what to do about the error of a file: empty if the error is none of the
// disk's.
func Cure(err error) string {
	for _, c := range []struct {
		of   error
		cure string
	}{
		{syscall.ENOSPC, "make room on its file system; df and df -i show how much it has"},
		{syscall.EDQUOT, "make room within the disk quota of its user, or raise that"},
		{syscall.EROFS, "mount its file system writable again; dmesg may say why it is read-only"},
		{syscall.EIO, "see to its disk; dmesg says more"},
	} {
		if errors.Is(err, c.of) {
			return c.cure
		}
	}
	return ""
}
