package disk

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

func TestCure(t *testing.T) {
	for err, want := range map[error]string{
		syscall.ENOSPC: "make room",
		syscall.EDQUOT: "quota",
		syscall.EROFS:  "writable",
		syscall.EIO:    "dmesg",
	} {
		if got := Cure(&fs.PathError{Op: "write", Path: "f", Err: err}); !strings.Contains(got, want) {
			t.Errorf("%v: %q says nothing of %q", err, got, want)
		}
	}
	for _, err := range []error{nil, errors.New("no space left on device"), syscall.EACCES} {
		if got := Cure(err); got != "" {
			t.Errorf("%v: %q", err, got)
		}
	}
}
