//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// floor is what the machine itself allows, in the same run: the same children
// started and restarted by a bare fork and exec, with nobody asked, nothing
// recorded and nothing watched.
type floor struct {
	starts   time.Duration   // until all n are in main, with as many at once as there are cores
	restarts []time.Duration // kill -9 -> the replacement in main
}

func measureFloor(ctx context.Context, dir, child string, n, kills int) (f floor, err error) {
	file := filepath.Join(dir, "floor-"+strconv.Itoa(n))
	s, err := newSlots(file, n)
	if err != nil {
		return f, err
	}
	defer s.close()
	defer func() {
		for i := range n {
			if pid := int(s.get(i).pid); pid > 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				_, err := syscall.Wait4(pid, nil, 0, nil)
				for errors.Is(err, syscall.EINTR) {
					_, err = syscall.Wait4(pid, nil, 0, nil)
				}
			}
		}
		_ = os.Remove(file)
	}()
	start := func(i int) error {
		_, err := syscall.ForkExec(child, []string{child, file, strconv.Itoa(i)}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
		return err
	}

	began := monotonic()
	var workers sync.WaitGroup
	failures := make([]error, 2)
	for w := range failures {
		workers.Go(func() {
			for i := w; i < n && failures[w] == nil; i += len(failures) {
				failures[w] = start(i)
			}
		})
	}
	workers.Wait()
	if err := errors.Join(failures...); err != nil {
		return f, err
	}
	for i := range n {
		born, err := s.await(ctx, i, 1)
		if err != nil {
			return f, err
		}
		f.starts = max(f.starts, time.Duration(born-began))
	}
	for k := range kills {
		i := k * 7 % n
		pid, killed := int(s.get(i).pid), monotonic()
		before := s.get(i).starts
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return f, err
		}
		for _, err = syscall.Wait4(pid, nil, 0, nil); errors.Is(err, syscall.EINTR); {
			_, err = syscall.Wait4(pid, nil, 0, nil)
		}
		if err := errors.Join(err, start(i)); err != nil {
			return f, err
		}
		born, err := s.await(ctx, i, before+1)
		if err != nil {
			return f, err
		}
		f.restarts = append(f.restarts, time.Duration(born-killed))
	}
	return f, nil
}
