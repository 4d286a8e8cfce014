package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Sampler measures what processes use, at one moment: make one for each round. It
// is not safe for concurrent use.
type Sampler struct {
	sessions map[int][]int // pids by the id of their session; nil: not looked yet
}

// Usage measures a process. It costs a few reads of /proc for each process of the
// tree. The error is ErrGone if it has ended.
func (s *Sampler) Usage(p *Process) (Usage, error) {
	var u Usage
	// While it is not reaped nobody else is in its cgroup or has its session.
	err := p.control(func(int) error {
		pids, err := s.tree(p)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			u.add(pid)
		}
		return nil
	})
	if err != nil {
		return Usage{}, err
	}
	if !p.Lives() {
		return Usage{}, fmt.Errorf("process %d has ended: %w", p.id.PID, ErrGone)
	}
	if all, ok := cgroupTime(p.id.Cgroup); ok && p.kind != outside {
		u.CPU = all
	}
	return u, nil
}

// tree are the pids to be measured. Without cgroups all sessions are looked up in
// one go: one look for each would be a look at all processes of the machine.
func (s *Sampler) tree(p *Process) ([]int, error) {
	switch {
	case p.kind == outside:
		return []int{p.id.PID}, nil
	case p.id.Cgroup != "":
		return pidsIn(p.id.Cgroup), nil
	}
	if s.sessions == nil {
		found, err := sessions()
		if err != nil {
			return nil, err
		}
		s.sessions = found
	}
	return s.sessions[p.id.PID], nil
}

// ticks is how many of the kernel's clock ticks, as it tells them, are a second;
// on all processors that Go has.
const ticks = 100

// add adds what one process uses, if it lives.
func (u *Usage) add(pid int) {
	s, err := readStat(pid)
	if err != nil || s.state == 'Z' || s.state == 'X' {
		return
	}
	u.CPU += time.Duration(s.ticks) * (time.Second / ticks)
	u.Memory += s.pages * uint64(os.Getpagesize())
	u.Threads += s.threads
	u.Descriptors += descriptorsOf(pid)
	u.Processes++
}

// descriptorsOf counts those of a process. Since Linux 6.2 the size of the directory
// tells how many there are.
func descriptorsOf(pid int) int {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	var info unix.Stat_t
	if unix.Stat(dir, &info) == nil && info.Size > 0 {
		return int(info.Size)
	}
	f, err := os.Open(dir)
	if err != nil {
		return 0
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	return len(names)
}

// cgroupTime is the processor time of all that are or were in a cgroup.
func cgroupTime(dir string) (time.Duration, bool) {
	if dir == "" {
		return 0, false
	}
	var buf [1024]byte
	text, err := slurp(filepath.Join(dir, "cpu.stat"), buf[:])
	if err != nil {
		return 0, false
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	digits, isTime := bytes.CutPrefix(line, []byte("usage_usec "))
	n, err := strconv.ParseInt(string(digits), 10, 64)
	return time.Duration(n) * time.Microsecond, isTime && err == nil
}
