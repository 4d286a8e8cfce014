package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// started are the children of this program that somebody in it waits for; all other
// children are strangers that the kernel has given it. They are the whole program's,
// as its children are.
var started = struct {
	// forking is held to read from before a fork until the child is in pids, so
	// that who holds it to write sees all.
	forking sync.RWMutex
	mu      sync.Mutex
	pids    map[int]int // how many wait: a pid may be somebody else's again before the first has let go
}{pids: map[int]int{}}

// claim has a child never be taken for a stranger, until disclaim.
func claim(pid int) {
	started.mu.Lock()
	started.pids[pid]++
	started.mu.Unlock()
}

func disclaim(pid int) {
	started.mu.Lock()
	if started.pids[pid]--; started.pids[pid] <= 0 {
		delete(started.pids, pid)
	}
	started.mu.Unlock()
}

func claimed(pid int) bool {
	started.mu.Lock()
	defer started.mu.Unlock()
	return started.pids[pid] > 0
}

// Aside runs f, which starts a process and waits for it by itself, as os/exec does:
// meanwhile no stranger is reaped.
func Aside(f func() error) error {
	started.forking.RLock()
	defer started.forking.RUnlock()
	return f()
}

// How often strangers are looked for: not more often than that however many end, and
// now and then also without a sign, because the kernel's list may leave one out
// while others end.
const (
	strangersPace = 50 * time.Millisecond
	strangersRest = 10 * time.Second
)

// ReapStrangers reaps, until ctx ends, the ended children of this program that it has
// not started, where it gets any: as the first process of a container, or as a
// subreaper. What Start and Adopt have made is never touched. Nobody else in the
// program may start processes but within Aside. The error says that the kernel does
// not tell whose children we have.
func ReapStrangers(ctx context.Context) error {
	if !inheritsOrphans() {
		return nil
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	defer signal.Stop(ended)
	for {
		again := strangersRest
		if started.forking.TryLock() { // else the children are not known for the moment
			err := reapStrangers()
			started.forking.Unlock()
			if err != nil {
				return fmt.Errorf("the processes that others leave to us can not be reaped: %w", err)
			}
		} else {
			again = strangersPace
		}
		if !pause(ctx, strangersPace, nil) || !pause(ctx, again-strangersPace, ended) {
			return nil
		}
	}
}

// pause waits for a sign, d at most; false if ctx ends first.
func pause(ctx context.Context, d time.Duration, sign <-chan os.Signal) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-sign:
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	return true
}

// inheritsOrphans tells whether the kernel gives us processes whose parents have ended.
func inheritsOrphans() bool {
	var subreaper int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&subreaper)), 0, 0, 0)
	return os.Getpid() == 1 || err == nil && subreaper != 0
}

// reapStrangers reaps those that have ended by now.
func reapStrangers() error {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(lists) == 0 {
		return errors.Join(err, errors.New("there is no /proc/self/task/*/children"))
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			// As our child it keeps its pid until somebody reaps it, and that can
			// only be we.
			if pid, err := strconv.Atoi(field); err == nil && !claimed(pid) {
				_ = unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG, nil)
			}
		}
	}
	return nil
}
