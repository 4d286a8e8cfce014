//go:build linux

package e2e

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/allexgo/machine-agent/e2e/lab"
)

// Where the LAN manager is far away, each bid is answered when the next ones are
// already out. All needs are served all the same, and no more than may be.
func TestSlowLAN(t *testing.T) {
	for name, test := range map[string]struct {
		config map[string]any
		want   int
	}{
		"all":               {want: 40},
		"as many as may be": {map[string]any{"maxprocesses": 3}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			manager := s.lan(needs(40, "hello")...)
			o := s.observe(manager)
			a := s.agent("machine", lab.AgentFiles{LANManager: s.slowly(manager.Address, 150*time.Millisecond), Ports: 60, Config: test.config})
			s.served(o, test.want)
			if running := s.running(a); len(running) > test.want {
				t.Errorf("%d processes run, want at most %d", len(running), test.want)
			}
		})
	}
}

// slowly is an address at which connections are passed on to another, each piece
// late by d.
func (s *stage) slowly(to string, d time.Duration) string {
	s.t.Helper()
	port, err := s.lab.Ports(1)
	s.must(err)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	s.must(err)
	var tasks sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	over := false
	s.t.Cleanup(func() {
		l.Close()
		mu.Lock()
		over = true
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		tasks.Wait()
	})
	tasks.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, near, far)
			if over { // and nobody else closes them
				near.Close()
				far.Close()
			}
			mu.Unlock()
			tasks.Go(func() { passOn(near, far, d) })
			tasks.Go(func() { passOn(far, near, d) })
		}
	})
	return l.Addr().String()
}

// passOn passes on what comes until one side ends.
func passOn(from, to net.Conn, d time.Duration) {
	type piece struct {
		due  time.Time
		text []byte
	}
	pieces := make(chan piece, 1024)
	var writer sync.WaitGroup
	writer.Go(func() {
		for p := range pieces {
			<-time.After(time.Until(p.due))
			_, _ = to.Write(p.text) // its end is seen by who reads from it
		}
		to.Close()
	})
	defer writer.Wait()
	defer close(pieces)
	for {
		buffer := make([]byte, 64<<10)
		n, err := from.Read(buffer)
		if n > 0 {
			pieces <- piece{time.Now().Add(d), buffer[:n]}
		}
		if err != nil {
			return
		}
	}
}
