//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// Whatever is killed or cut, when, in whatever order: no agent ever has two
// processes of one instance, and in the end each need is served by one process
// on the whole LAN, with the ports that the LAN knows (design section 9, 1 to 3).
func TestTurmoil(t *testing.T) {
	for _, agents := range []int{1, 2} {
		t.Run(strconv.Itoa(agents), func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			turmoil(newStage(t), agents, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

// unrest is a LAN whose parts are killed and cut.
type unrest struct {
	*stage
	random  *rand.Rand
	manager *lab.LANManager
	agents  []*lab.Agent
	links   []*proxy
}

func turmoil(s *stage, agents int, random *rand.Rand) {
	const n, blows = 6, 24
	u := &unrest{stage: s, random: random, manager: s.lan(needs(n, "hello")...)}
	for i := range agents {
		port, err := s.lab.Ports(1)
		s.must(err)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		u.links = append(u.links, startProxy(s.t, address, u.manager.Address))
		u.agents = append(u.agents, s.agent(fmt.Sprint("agent-", i), lab.AgentFiles{
			LANManager: address, Config: map[string]any{"orphangrace": "100ms"},
		}))
	}
	stop := s.watchDoubles()
	for range blows {
		u.blow(fmt.Sprintf("hello-%d", random.IntN(n)), random.IntN(agents))
		<-time.After(rand.N(150 * time.Millisecond)) // any moment is a good one for the next
	}
	for _, link := range u.links {
		link.restore()
	}
	o := s.observe(u.manager)
	s.until(func() string {
		if all, services := s.lab.Children(), o.Services(); total(all) != n || len(services) != n {
			return fmt.Sprintf("%d processes, %d services; want %d of each: %v", total(all), len(services), n, all)
		}
		return ""
	})
	stop()
	u.agree(o)
}

// blow hits one of the parts.
func (u *unrest) blow(instance string, i int) {
	switch u.random.IntN(10) {
	default:
		for _, c := range u.lab.Children()[instance] {
			c.Kill()
		}
	case 0, 1:
		u.must(u.agents[i].Stop(syscall.SIGKILL))
		u.agents[i] = u.again(u.agents[i].Name)
	case 2:
		u.must(u.agents[i].Leave())
		u.agents[i] = u.again(u.agents[i].Name)
	case 3:
		u.must(u.manager.Stop(syscall.SIGKILL))
		u.manager = u.lan()
	case 4:
		// There may be nothing to restart now.
		_, _ = u.agents[i].Client.Processes.RestartProcess(u.ctx, &pb.RestartProcessRequest{Instance: instance})
	case 5:
		u.links[i].cut()
	case 6:
		u.links[i].restore()
	}
}

// agree makes sure that the LAN, the agents and the system tell the same story.
func (u *unrest) agree(o *lab.Observer) {
	children, known, told := u.singles(), map[string]table.Ports{}, map[string]table.Ports{}
	for _, a := range u.agents {
		for name, p := range u.running(a) {
			ports := p.GetPorts()
			known[name] = table.Ports{TCP: int(ports.GetTcp()), HTTP: int(ports.GetHttp()), WS: int(ports.GetWs())}
			if children[name].PID != int(p.GetPid()) || children[name].Agent != a.Name {
				u.t.Errorf("%s has %v, the system has %v", a.Name, p, children[name])
			}
			u.accepts(known[name].HTTP)
		}
	}
	for name, service := range o.Services() {
		told[name] = service.Ports
	}
	if diff := cmp.Diff(told, known); diff != "" {
		u.t.Errorf("the LAN's ports differ from the agents' (-LAN +agents):\n%s", diff)
	}
}

func total(children map[string][]lab.Child) int {
	n := 0
	for _, all := range children {
		n += len(all)
	}
	return n
}

// watchDoubles watches that no agent has two processes of one instance, until it
// is stopped.
func (s *stage) watchDoubles() (stop func()) {
	watching, cancel := context.WithCancel(s.ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for watching.Err() == nil {
			for instance, all := range s.lab.Children() {
				for i, c := range all {
					for _, other := range all[:i] {
						if c.Agent == other.Agent && c.Alive() && other.Alive() {
							s.t.Errorf("%s has two processes: %v and %v", instance, other, c)
						}
					}
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
