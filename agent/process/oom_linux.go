package process

import (
	"bytes"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// KernelLog is what the kernel says of processes that it ends because memory has run
// out. Nobody else tells that from another SIGKILL. It is safe for concurrent use; nil
// knows nothing.
type KernelLog struct {
	mu    sync.Mutex
	fd    int // at the first record that has not been read
	ended []victim
}

// victim is a process that the kernel has ended.
type victim struct {
	pid     int
	limited bool // by the limit of a cgroup, not of the machine
}

// mostVictims is how many are remembered. Whoever asks for one asks when it has just
// ended.
const mostVictims = 256

// OpenKernelLog reads the log from now on. The error is that of a user who may not
// read it, or of a container that has none.
func OpenKernelLog() (*KernelLog, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("can not read the kernel's log: %w", err)
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("can not read the kernel's log: %w", err)
	}
	return &KernelLog{fd: fd}, nil
}

// Close may be called once, when nobody asks any more.
func (l *KernelLog) Close() {
	if l != nil {
		unix.Close(l.fd)
	}
}

// OutOfMemory tells in words why the kernel has ended a process, if it was for want of
// memory; empty if that is not known. The caller has not reaped it yet.
func (l *KernelLog) OutOfMemory(pid int) string {
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read()
	for _, v := range l.ended {
		switch {
		case v.pid != pid:
		case v.limited:
			return "the kernel ended it, because the memory of its cgroup was used up: it takes too much, or the limit is too low"
		default:
			return "the kernel ended it, because the machine's memory was used up"
		}
	}
	return ""
}

// read takes note of the records that have come since.
func (l *KernelLog) read() {
	var record [8 << 10]byte // the most that there is to one
	for {
		n, err := unix.Read(l.fd, record[:])
		switch err {
		case nil:
			if v, ok := parseVictim(record[:n]); ok {
				l.ended = append(l.ended, v)
				l.ended = l.ended[max(0, len(l.ended)-mostVictims):]
			}
		case unix.EPIPE, unix.EINTR: // older ones were overwritten
		default:
			return
		}
	}
}

// parseVictim reads a record such as
//
//	3,434,3885292144,-;Memory cgroup out of memory: Killed process 1607 (name) total-vm:...
func parseVictim(record []byte) (v victim, ok bool) {
	_, text, _ := bytes.Cut(record, []byte(";"))
	before, after, ok := bytes.Cut(text, []byte("ut of memory: Killed process "))
	if !ok {
		return v, false
	}
	v.limited = bytes.HasPrefix(before, []byte("Memory cgroup"))
	n, _ := fmt.Sscan(string(after), &v.pid)
	return v, n == 1
}
