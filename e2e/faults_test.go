//go:build linux

package e2e

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/allexgo/machine-agent/client"
	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/internal/fault"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

var (
	schedules = flag.Int("schedules", 40, "how many schedules of faults TestFaults walks")
	seed      = flag.Uint64("seed", 0, "of the first schedule, the next ones have the numbers after it; 0: by the clock")
)

// Whatever is killed, cut, held up or refused, when, in whatever order: what
// always holds (design section 9) holds at every moment and at the end. A
// schedule is made of its seed; TestFaults -schedules 1 -seed N walks it again.
func TestFaults(t *testing.T) {
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	t.Logf("schedules %d to %d", first, first+uint64(*schedules)-1)
	bin := faultyBuild(t)
	looker := startBystander(t)
	t.Run("schedule", func(t *testing.T) {
		for n := range *schedules {
			number := first + uint64(n)
			t.Run(strconv.FormatUint(number, 10), func(t *testing.T) {
				t.Parallel()
				s := newStage(t)
				s.lab.Bin = bin
				random := rand.New(rand.NewPCG(number, 0))
				newTrial(s, random, 1+random.IntN(2), 6, talkative).walk()
			})
		}
	})
	looker.check()
}

// faultyBuild makes the programs with the points at which they can be hit.
func faultyBuild(t *testing.T) (bin string) {
	t.Helper()
	bin = filepath.Join(ourBin(), "faulty")
	if err := compile(bin, "-tags", "grpcnotrace,faults", "../cmd/...", "../examples/..."); err != nil {
		t.Fatal(err)
	}
	return bin
}

// trial is a LAN whose parts are hit.
type trial struct {
	*stage
	random    *rand.Rand
	instances []string
	manager   *lab.LANManager
	agents    []*lab.Agent
	links     []*proxy
	notes     []string // what was done, for a failure
}

// talkative is how long a line of a talker is whose log is to be rotated soon.
const talkative = 500

// newTrial starts agents that serve so many needs. The lines of the talkers among them
// are of so many bytes at least.
func newTrial(s *stage, random *rand.Rand, agents, served, line int) *trial {
	r := &trial{stage: s, random: random}
	all := append(needs(served/2, "hello"), needs(served-served/2, "talker")...)
	for _, n := range all {
		r.instances = append(r.instances, n.InstanceName)
	}
	r.manager = s.lan(all...)
	talker := s.role("talker", map[string]string{talkerLine: strconv.Itoa(line)})
	talker["log"] = map[string]any{"maxsize": "64KiB", "keep": 1000}
	for i := range agents {
		port, err := s.lab.Ports(1)
		s.must(err)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		r.links = append(r.links, startProxy(s.t, address, r.manager.Address))
		r.agents = append(r.agents, s.agent(fmt.Sprint("agent-", i), lab.AgentFiles{
			LANManager: address, Ports: 3 * served, Config: map[string]any{"orphangrace": "100ms"},
			Modules: map[string]lab.Module{"hello": s.hello(), "talker": talker},
		}))
	}
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("what was done:\n%s", strings.Join(r.notes, "\n"))
		}
	})
	return r
}

// walk hits the parts, one after the other, and then looks whether all is well.
func (r *trial) walk() {
	const blows = 12
	stop := r.watchDoubles()
	for range blows {
		r.blow()
		<-time.After(time.Duration(r.random.Int64N(int64(120 * time.Millisecond)))) // any moment is a good one for the next
		r.nurse()
	}
	for i, link := range r.links {
		link.restore()
		for _, instance := range r.instances { // a blow may have held it
			r.letGo(i, instance)
		}
	}
	r.recovered() // with what is still to be met
	r.calm()
	r.recovered()
	stop()
	r.promises()
	r.t.Logf("met: %s", strings.Join(r.met(), ", "))
}

// met are the faults that were met.
func (r *trial) met() (all []string) {
	logs := []string{r.manager.Log}
	for _, a := range r.agents {
		logs = append(logs, a.Log)
	}
	for _, log := range logs {
		text, err := os.ReadFile(log)
		r.must(err)
		for line := range strings.Lines(string(text)) {
			if what, ok := strings.CutPrefix(line, "fault: "); ok {
				all = append(all, strings.TrimSpace(what))
			}
		}
	}
	return all
}

// letGo lifts the hold of an instance, if there is one, also of an agent that
// meets its fault meanwhile.
func (r *trial) letGo(i int, instance string) {
	r.until(func() string {
		_, err := r.agents[i].Client.Processes.StartProcess(r.ctx, &pb.StartProcessRequest{Instance: instance})
		if err == nil || errors.Is(err, client.ErrNotFound) {
			return ""
		}
		r.nurse()
		return err.Error()
	})
}

// did notes what is done.
func (r *trial) did(format string, args ...any) {
	r.notes = append(r.notes, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// blow hits one of the parts. What it chooses depends on the seed only.
func (r *trial) blow() {
	instance := r.instances[r.random.IntN(len(r.instances))]
	i := r.random.IntN(len(r.agents))
	a := r.agents[i]
	agentd, lanmanager := fault.Points()
	switch r.random.IntN(18) {
	default:
		r.did("kill %s", instance)
		for _, c := range r.lab.Children()[instance] {
			c.Kill()
		}
	case 0, 1, 2, 3:
		how := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[r.random.IntN(2)]
		what := r.fault(agentd)
		r.did("%s: %v, then again with %s", a.Name, how, what)
		r.must(a.Stop(how))
		r.startAgent(i, what)
	case 4:
		what := r.fault(lanmanager)
		r.did("LAN manager: killed, then again with %s", what)
		r.must(r.manager.Stop(syscall.SIGKILL))
		r.startManager(what)
	case 5:
		r.did("%s: restart %s", a.Name, instance)
		_, _ = a.Client.Processes.RestartProcess(r.ctx, &pb.RestartProcessRequest{Instance: instance})
	case 6:
		r.did("%s: stop %s", a.Name, instance)
		_, _ = a.Client.Processes.StopProcess(r.ctx, &pb.StopProcessRequest{Instance: instance})
	case 7:
		r.did("%s: start %s", a.Name, instance)
		_, _ = a.Client.Processes.StartProcess(r.ctx, &pb.StartProcessRequest{Instance: instance})
	case 8:
		r.did("%s: cut", a.Name)
		r.links[i].cut()
	case 9:
		r.did("%s: restored", a.Name)
		r.links[i].restore()
	case 10, 11:
		within := []time.Duration{100 * time.Millisecond, 10 * time.Second}[r.random.IntN(2)] // the first is over with some faults
		r.did("%s: upgrade within %s", a.Name, within)
		_, _ = a.Client.Agent.Upgrade(r.ctx, &pb.UpgradeRequest{ReadyWithin: durationpb.New(within)})
	case 12:
		r.did("%s and the LAN manager: rubbish", a.Name)
		r.throwRubbish("unix", a.Socket)
		r.throwRubbish("tcp", r.manager.Address)
	}
}

// calm starts those again that have not met their fault.
func (r *trial) calm() {
	r.nurse()
	for i, a := range r.agents {
		r.did("%s: again without a fault", a.Name)
		r.must(a.Leave())
		r.startAgent(i)
	}
	r.must(r.manager.Stop(syscall.SIGTERM))
	r.startManager()
}

// fault is one that a program is to meet.
func (r *trial) fault(points []fault.Point) string {
	p := points[r.random.IntN(len(points))]
	actions := []string{"kill", "kill", "30ms", "300ms", "fail"}
	if !p.Fails() {
		actions = actions[:4]
	}
	times := 5
	if p.Rare() {
		times = 1
	}
	return fmt.Sprintf("%s=%s=%s@%d", fault.Variable, p, actions[r.random.IntN(len(actions))], 1+r.random.IntN(times))
}

// startAgent starts an agent again. One that a fault ends at once is nursed.
func (r *trial) startAgent(i int, environment ...string) {
	a, err := r.lab.StartAgent(r.agents[i].Name, environment...)
	if a == nil {
		r.t.Fatal(err)
	}
	r.agents[i] = a
	if err != nil {
		r.expected(a.Program, err)
	}
}

func (r *trial) startManager(environment ...string) {
	m, err := r.lab.StartLANManager("lan", nil, environment...)
	if m == nil {
		r.t.Fatal(err)
	}
	r.manager = m
	if err != nil {
		r.expected(m.Program, err)
	}
}

// expected makes sure that a program has failed because it was to.
func (r *trial) expected(p *lab.Program, err error) {
	r.t.Helper()
	if !strings.Contains(p.Output(), "fault: ") {
		r.t.Fatal(err)
	}
}

// nurse starts again what a fault has ended.
func (r *trial) nurse() {
	for i, a := range r.agents {
		if ended(a.Program) {
			r.expected(a.Program, fmt.Errorf("%s ended by itself:\n%s", a.Name, a.Output()))
			r.did("%s: again", a.Name)
			r.must(a.Stop(syscall.SIGKILL)) // it has ended; its client has not
			r.startAgent(i)
		}
	}
	if ended(r.manager.Program) {
		r.expected(r.manager.Program, fmt.Errorf("the LAN manager ended by itself:\n%s", r.manager.Output()))
		r.did("LAN manager: again")
		r.startManager()
	}
}

func ended(p *lab.Program) bool {
	select {
	case <-p.Ended():
		return true
	default:
		return false
	}
}

// throwRubbish writes a few hundred bytes without sense and hangs up.
func (r *trial) throwRubbish(network, address string) {
	c, err := net.Dial(network, address)
	if err != nil {
		return // it has just been hit
	}
	defer c.Close()
	rubbish := make([]byte, 1+r.random.IntN(500))
	for i := range rubbish {
		rubbish[i] = byte(r.random.Uint32())
	}
	_, _ = c.Write(rubbish) // it may hang up first
}
