package process

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The whole life of a process that does nothing.
func BenchmarkLife(b *testing.B) {
	b.Run("session", func(b *testing.B) { benchmarkLife(b, "") })
	b.Run("cgroup", func(b *testing.B) { benchmarkLife(b, benchmarkCgroup(b)) })
}

func benchmarkLife(b *testing.B, cgroup string) {
	s := Spec{Instance: "true", Argv: []string{lookPath(b, "true")}, Log: filepath.Join(b.TempDir(), "log"), Cgroup: cgroup}
	for b.Loop() {
		p, err := Start(s)
		if err != nil {
			b.Fatal(err)
		}
		if got := takeEnd(b, p); got != (Exit{}) {
			b.Fatal(got)
		}
	}
}

func benchmarkCgroup(b *testing.B) string {
	root, err := testCgroups(b)
	if err != nil {
		b.Fatal(err)
	}
	return filepath.Join(root, "instance")
}

// What it costs to know the death of one among many, to see that nothing of its
// tree is left, and to reap it.
func BenchmarkDeath(b *testing.B) {
	for _, kind := range []string{"session", "cgroup"} {
		b.Run(kind, func(b *testing.B) {
			root := ""
			if kind == "cgroup" {
				root = benchmarkCgroup(b)
			}
			var wg sync.WaitGroup
			background := make([]*Process, 300)
			for i := range background {
				background[i] = sleeper(b, root, i)
				wg.Go(func() { takeEnd(b, background[i]) })
			}
			for b.Loop() {
				b.StopTimer()
				p := sleeper(b, root, len(background))
				b.StartTimer()
				_ = p.Signal(unix.SIGKILL)
				takeEnd(b, p)
			}
			for _, p := range background {
				_ = p.Signal(unix.SIGKILL)
			}
			wg.Wait()
		})
	}
}

func sleeper(b *testing.B, root string, i int) *Process {
	s := Spec{Instance: "sleep", Argv: []string{lookPath(b, "sleep"), "600"}}
	if root != "" {
		s.Cgroup = fmt.Sprintf("%s-%d", root, i)
	}
	return start(b, s)
}

func BenchmarkListens(b *testing.B) {
	port := 1
	for name, ask := range map[string]func(int) ([]Listener, error){"netlink": Listeners, "table": listenersByTable} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := ask(port); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
