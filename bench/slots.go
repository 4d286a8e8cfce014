//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// slots is the file in which the children of bsleep.c stamp their starts: 64
// bytes each, of which pid, monotonic time in main, and the count of starts.
type slots struct {
	path string
	mem  []byte
}

type slot struct{ pid, born, starts int64 }

const slotSize = 64

func newSlots(path string, n int) (*slots, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(int64(n * slotSize)); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, n*slotSize, unix.PROT_READ, unix.MAP_SHARED)
	return &slots{path: path, mem: mem}, err
}

func (s *slots) get(i int) slot {
	b := s.mem[i*slotSize:]
	return slot{
		pid:    int64(binary.NativeEndian.Uint64(b)),
		born:   int64(binary.NativeEndian.Uint64(b[8:])),
		starts: int64(binary.NativeEndian.Uint64(b[16:])),
	}
}

func (s *slots) close() { _ = unix.Munmap(s.mem) }

// await waits until the child of a slot has been started so many times, and
// tells when it was the last time.
func (s *slots) await(ctx context.Context, i int, starts int64) (int64, error) {
	for {
		if now := s.get(i); now.starts >= starts {
			return now.born, nil
		}
		select {
		case <-time.After(200 * time.Microsecond):
		case <-ctx.Done():
			return 0, fmt.Errorf("child %d did not start: %w", i, ctx.Err())
		}
	}
}
