package process

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	usersMemory = 64 << 20
	usersFiles  = 50
	usersTime   = 200 * time.Millisecond
)

// use uses memory and descriptors, has a child, and has worked: half of it by a
// child that has ended.
func use(args []string) {
	if len(args) > 0 {
		work(usersTime / 2)
		return
	}
	memory, err := unix.Mmap(-1, 0, usersMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	check(err)
	for range usersFiles {
		_, err := unix.Open(os.DevNull, unix.O_RDONLY, 0)
		check(err)
	}
	worker, err := os.StartProcess("/proc/self/exe", []string{"use", "worker"}, &os.ProcAttr{Env: []string{roleKey + "=use"}})
	check(err)
	_, err = worker.Wait()
	check(err)
	work(usersTime / 2)
	beget("wait", &syscall.SysProcAttr{})
	forever()
	_ = memory
}

// work uses so much processor time, however long that takes.
func work(d time.Duration) {
	for {
		var now unix.Rusage
		check(unix.Getrusage(unix.RUSAGE_SELF, &now))
		if time.Duration(now.Utime.Nano()+now.Stime.Nano()) >= d {
			return
		}
	}
}

// What a process uses is that of its tree, also of what has ended.
func TestUsage(t *testing.T) {
	trees(t, func(t *testing.T, cgroup string) {
		s := as(t, "use")
		s.Cgroup = cgroup
		p := start(t, s)
		lines(t, s.Log, 1) // its child is ready
		var sampler Sampler
		u, err := sampler.Usage(p)
		if err != nil {
			t.Fatal(err)
		}
		// The kernel's ticks are 10 ms, and rounded down for each of the times.
		if u.CPU < usersTime-50*time.Millisecond || u.Memory < usersMemory || u.Descriptors < usersFiles || u.Processes != 2 || u.Threads <= u.Processes {
			t.Errorf("got %+v", u)
		}
		finish(t, p)
		if _, err := sampler.Usage(p); !errors.Is(err, ErrGone) {
			t.Errorf("of one that has ended: %v", err)
		}
	})
}

// Of a process that is not ours nothing is measured but itself.
func TestUsageOfAnOutsideProcess(t *testing.T) {
	s := as(t, "use")
	p := start(t, s)
	lines(t, s.Log, 1)
	outsider, err := Watch(p.Identity().PID)
	if err != nil {
		t.Fatal(err)
	}
	defer outsider.Close()
	if u, err := new(Sampler).Usage(outsider); err != nil || u.Processes != 1 || u.Memory < usersMemory {
		t.Errorf("got %+v, %v", u, err)
	}
}

// What it costs to measure a thousand.
func BenchmarkUsage(b *testing.B) {
	const many = 1000
	for _, kind := range []string{"session", "cgroup"} {
		b.Run(kind, func(b *testing.B) {
			root := ""
			if kind == "cgroup" {
				root = benchmarkCgroup(b)
			}
			all := make([]*Process, many)
			for i := range all {
				all[i] = sleeper(b, root, i)
			}
			for b.Loop() {
				var s Sampler
				for _, p := range all {
					if _, err := s.Usage(p); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
