//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// Whatever is killed, when, in whatever order: an instance never has two
// processes, and in the end each need is served by one, with the ports that the
// LAN knows (design section 9, 1 to 3).
func TestTurmoil(t *testing.T) {
	t.Parallel()
	const n, blows = 6, 24
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	s := newStage(t)
	manager := s.lan(needs(n, "hello")...)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address})
	stop := s.watchDoubles()
	for range blows {
		instance := fmt.Sprintf("hello-%d", random.IntN(n))
		switch random.IntN(8) {
		default:
			for _, c := range s.lab.Children()[instance] {
				c.Kill()
			}
		case 0, 1:
			s.must(a.Stop(syscall.SIGKILL))
			a = s.again("machine")
		case 2:
			s.must(a.Leave())
			a = s.again("machine")
		case 3:
			s.must(manager.Stop(syscall.SIGKILL))
			manager = s.lan()
		case 4:
			// There may be nothing to restart now.
			_, _ = a.Client.Processes.RestartProcess(s.ctx, &pb.RestartProcessRequest{Instance: instance})
		}
		<-time.After(rand.N(150 * time.Millisecond)) // any moment is a good one for the next blow
	}

	o := s.observe(manager)
	s.served(o, n)
	s.settled(a, n)
	stop()
	children, known := s.singles(), map[string]table.Ports{}
	for name, p := range s.running(a) {
		ports := p.GetPorts()
		known[name] = table.Ports{TCP: int(ports.GetTcp()), HTTP: int(ports.GetHttp()), WS: int(ports.GetWs())}
		if children[name].PID != int(p.GetPid()) {
			t.Errorf("the agent has %v, the system has %v", p, children[name])
		}
		s.accepts(known[name].HTTP)
	}
	told := map[string]table.Ports{}
	for name, service := range o.Services() {
		told[name] = service.Ports
	}
	if diff := cmp.Diff(told, known); diff != "" || len(children) != n {
		t.Errorf("%d instances have processes; the LAN's ports differ from the agent's (-LAN +agent):\n%s", len(children), diff)
	}
}

// watchDoubles watches that no instance has two processes, until it is stopped.
func (s *stage) watchDoubles() (stop func()) {
	watching, cancel := context.WithCancel(s.ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for watching.Err() == nil {
			for instance, all := range s.lab.Children() {
				if len(all) > 1 && all[0].Alive() && all[1].Alive() {
					s.t.Errorf("%s has %d processes: %v", instance, len(all), all)
				}
			}
			<-time.After(2 * time.Millisecond) // others need the processor too
		}
	})
	stop = func() {
		cancel()
		watch.Wait()
	}
	s.t.Cleanup(stop)
	return stop
}
