package output

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// punch makes a hole of the first to bytes of f. Its size stays.
func punch(f *os.File, to int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, to)
		if err != unix.EINTR {
			return err
		}
	}
}

// data is the offset of the first data of f at or behind an offset; the size if
// there is none.
func data(f *os.File, from int64) (int64, error) {
	at, err := unix.Seek(int(f.Fd()), from, unix.SEEK_DATA)
	if err == unix.ENXIO {
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
	return at, err
}

// usage is what a file takes of the disk.
func usage(info os.FileInfo) int64 {
	const block = 512 // stat(2)
	return info.Sys().(*syscall.Stat_t).Blocks * block
}

// blockSize is the least that can be released of a file.
func blockSize(info os.FileInfo) int64 {
	return max(info.Sys().(*syscall.Stat_t).Blksize, 4<<10)
}

// freeSpace is that of a directory's file system; not known where it has no
// bound.
func freeSpace(directory string) (free uint64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(directory, &s); err != nil || s.Blocks == 0 {
		return 0, false
	}
	return s.Bfree * uint64(s.Bsize), true
}
