//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// passed is a module of hello that gets the sockets that it serves on. Every end
// of it is replaced without a wait.
func (s *stage) passed() lab.Module {
	module := s.hello()
	module["portmode"], module["ready"] = "passed", map[string]string{"kind": "http"}
	module["backoff"] = map[string]string{"initial": "0s", "reset": "1ms"}
	return module
}

// load asks a page again and again, each time on a connection of its own.
type load struct {
	answered, refused, broken atomic.Int64
	refusal                   atomic.Pointer[error]
	stop                      context.CancelFunc
	workers                   sync.WaitGroup
}

// putLoad has workers ask until the test ends, or end is called.
func (s *stage) putLoad(url string, workers int) *load {
	ctx, stop := context.WithCancel(s.ctx)
	l := &load{stop: stop}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range workers {
		l.workers.Go(func() {
			for ctx.Err() == nil {
				l.ask(ctx, client, url)
			}
		})
	}
	s.t.Cleanup(l.end)
	return l
}

func (l *load) end() {
	l.stop()
	l.workers.Wait()
}

func (l *load) ask(ctx context.Context, client *http.Client, url string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		panic(err) // the URL is the test's
	}
	response, err := client.Do(request)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	var network *net.OpError
	switch {
	case ctx.Err() != nil:
	case err == nil:
		l.answered.Add(1)
	case errors.As(err, &network) && network.Op == "dial":
		l.refused.Add(1)
		l.refusal.Store(&err)
	default: // the process died over it
		l.broken.Add(1)
	}
}

// kill ends a process that is there.
func (s *stage) kill(p *pb.Process) {
	s.t.Helper()
	if p.GetPid() <= 1 {
		s.t.Fatalf("there is no process to kill: %v", p)
	}
	s.must(syscall.Kill(int(p.GetPid()), syscall.SIGKILL))
}

// answers waits until there is an answer to what is asked from now on.
func (s *stage) answers(l *load, workers int64) {
	s.t.Helper()
	enough := l.answered.Load() + workers + 1 // each worker may have one that is older
	s.until(func() string {
		if got := l.answered.Load(); got < enough {
			return fmt.Sprintf("%d answers, want %d", got, enough)
		}
		return ""
	})
}

// A service with passed sockets is killed time and again under load, and refuses
// nobody: neither with the agent that started it nor, when that was killed itself,
// with the next one.
func TestPassedUnderLoad(t *testing.T) {
	s := newStage(t)
	manager := s.lan(needs(1, "hello")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"hello": s.passed()}})
	s.served(o, 1)
	port := o.Services()["hello-0"].Ports.HTTP
	const workers, kills = 4, 50
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	l := s.putLoad(url, workers)

	killAll := func(a *lab.Agent) {
		for range kills {
			s.answers(l, workers)
			seen := len(o.Changes())
			s.kill(s.process(a, "hello-0"))
			s.must(o.AwaitAgain(s.ctx, seen, "hello-0"))
		}
		s.answers(l, workers)
		t.Logf("after %d kills: %d answered, %d connects refused, %d requests broken off",
			kills, l.answered.Load(), l.refused.Load(), l.broken.Load())
	}
	killAll(a)
	s.must(a.Stop(syscall.SIGKILL))
	a = s.again("machine")
	s.linked(a)
	s.served(o, 1)
	killAll(a)
	if l.refused.Load() > 0 {
		t.Errorf("%d connects were refused, such as: %v", l.refused.Load(), *l.refusal.Load())
	}
	if now := o.Services()["hello-0"].Ports.HTTP; now != port {
		t.Errorf("the port has moved from %d to %d", port, now)
	}
	s.lease(a, port, pb.PortState_PORT_STATE_LISTENING, pb.PortListener_PORT_LISTENER_OURS)
	l.end()

	// When no replacement is due, nobody is left waiting.
	_, err := a.Client.Processes.StopProcess(s.ctx, &pb.StopProcessRequest{Instance: "hello-0"})
	s.must(err)
	s.until(func() string {
		if c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(port))); err == nil {
			c.Close()
			return "somebody accepts on the port of a held instance"
		}
		return ""
	})
}

// lease checks what an agent says of a port.
func (s *stage) lease(a *lab.Agent, port int, state pb.PortState, listener pb.PortListener) {
	s.t.Helper()
	all := s.leases(a)
	n := slices.IndexFunc(all, func(l *pb.PortLease) bool { return int(l.GetPort()) == port })
	if n < 0 {
		s.t.Fatalf("port %d is not leased", port)
	}
	if l := all[n]; l.GetState() != state || l.GetListener() != listener || l.GetDetail() != "" {
		s.t.Errorf("the agent says %v, want %v and %v", l, state, listener)
	}
}
