package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// bootID is the kernel's name for this boot, read once.
var bootID = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("can not tell this boot from another: %w; is /proc mounted?", err)
	}
	return strings.TrimSpace(string(text)), nil
})

// stat is what we need of /proc/pid/stat (proc_pid_stat(5)).
type stat struct {
	state  byte
	parent int
	start  uint64             // clock ticks since boot
	exit   syscall.WaitStatus // of a zombie

	ticks   uint64 // of processor time, with that of the children it has waited for
	threads int
	pages   uint64 // in main memory
}

func readStat(pid int) (stat, error) {
	var buf [1024]byte
	text, err := slurp(fmt.Sprintf("/proc/%d/stat", pid), buf[:])
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return stat{}, fmt.Errorf("there is no process %d: %w", pid, ErrGone)
	}
	if err != nil {
		return stat{}, fmt.Errorf("can not read who process %d is: %w", pid, err)
	}
	s, err := parseStat(text)
	if err != nil {
		return stat{}, fmt.Errorf("can not read who process %d is: %w", pid, err)
	}
	return s, nil
}

// parseStat skips the command name, which may hold anything, by its last
// parenthesis.
func parseStat(text []byte) (stat, error) {
	const first = 3 // number of the first field behind the name
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) <= 52-first || len(fields[0]) != 1 {
		return stat{}, fmt.Errorf("unknown form of stat file: %q", text)
	}
	var failed error
	number := func(field, bits int) uint64 {
		n, err := strconv.ParseUint(fields[field-first], 10, bits)
		failed = errors.Join(failed, err)
		return n
	}
	s := stat{state: fields[0][0], parent: int(number(4, 31)), start: number(22, 64), exit: syscall.WaitStatus(number(52, 32))}
	amount := func(field int) uint64 { // signed, and nobody's life hangs on it
		n, _ := strconv.ParseInt(fields[field-first], 10, 64)
		return uint64(max(n, 0))
	}
	s.ticks = amount(14) + amount(15) + amount(16) + amount(17)
	s.threads, s.pages = int(amount(20)), amount(24)
	return s, failed
}

func startTime(pid int) (uint64, error) {
	s, err := readStat(pid)
	return s.start, err
}

// parentOf is the pid of a process's parent. The error is ErrGone if there is no
// such process. Who asks for more than one step must know that a parent that
// ended has been replaced by init.
func parentOf(pid int) (int, error) {
	s, err := readStat(pid)
	return s.parent, err
}

// slurp reads a small file of the kernel in one go, without the poller and the
// allocations of os.ReadFile.
func slurp(path string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}
