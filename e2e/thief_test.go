//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
)

var (
	stealFor = flag.Duration("thieves", 10*time.Second, "how long each part of TestThieves goes on")
	robbed   = flag.Int("robbed", 300, "how many needs TestThieves has")
)

// What a thief finds in its environment: the first of its ports, their number, and
// whether it sets SO_REUSEADDR.
const (
	thiefFirst = "E2E_THIEF_FIRST"
	thiefPorts = "E2E_THIEF_PORTS"
	thiefReuse = "E2E_THIEF_REUSE"
)

// haul is how many ports a thief has at a time: it lets the oldest go for the next.
const haul = 16

// thief takes one port after the other, listens there and lets it go soon, until it
// is killed.
func thief() error {
	first, err := strconv.Atoi(os.Getenv(thiefFirst))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(os.Getenv(thiefPorts))
	if err != nil {
		return err
	}
	var taken [haul]int
	for k := range taken {
		taken[k] = -1
	}
	for at := 0; ; at++ {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		if os.Getenv(thiefReuse) != "" {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
				return err
			}
		}
		if unix.Bind(fd, &unix.SockaddrInet4{Port: first + at%n}) == nil {
			_ = unix.Listen(fd, 1) // another one may
		}
		unix.Close(taken[at%haul])
		taken[at%haul] = fd
	}
}

// putThief has a thief at work until the test ends.
func (s *stage) putThief(first, ports int, reuse string) {
	s.t.Helper()
	self, err := os.Executable()
	s.must(err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"=thief", fmt.Sprintf("%s=%d", thiefFirst, first),
		fmt.Sprintf("%s=%d", thiefPorts, ports), thiefReuse+"="+reuse)
	cmd.Stderr = os.Stderr
	s.must(cmd.Start())
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); err == nil {
			s.t.Error("a thief gave up")
		}
	})
}

// Beside programs that take every port of the ranges that they can get, in a tight
// loop, needs are served and their processes killed. With held ports no start
// fails, unless the thief sets SO_REUSEADDR; whatever it does, a service is on a
// port that is the child's.
func TestThieves(t *testing.T) {
	for _, c := range []struct {
		name  string
		reuse []string // one thief each
		modes []string
		fails bool // starts may
	}{
		{"without SO_REUSEADDR", []string{""}, []string{"reserved", "passed"}, false},
		{"both", []string{"", "yes"}, []string{"reserved", "passed", "released"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			s.endure(*stealFor + enough)
			modules, wanted := map[string]lab.Module{}, []lab.Need(nil)
			for _, mode := range c.modes {
				module := s.passed()
				module["modulename"], module["portmode"] = mode, mode
				module["ports"] = []string{"tcp", "http", "ws"}
				if mode != "passed" {
					module["ready"] = map[string]string{"kind": "port"}
				}
				module["backoff"] = map[string]string{"initial": "0s", "max": "200ms", "reset": "1ms"}
				modules[mode] = module
				wanted = append(wanted, needs(*robbed/len(c.modes), mode)...)
			}
			manager := s.lan(wanted...)
			o := s.observe(manager)
			ports := 4 * len(wanted)
			first, err := s.lab.Ports(3 * ports)
			s.must(err)
			for _, reuse := range c.reuse {
				s.putThief(first, 3*ports, reuse)
			}
			address := s.metricsAddress()
			a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules, Config: map[string]any{
				"portrangestart": map[string]int{"tcp": first, "http": first + ports, "ws": first + 2*ports}, "portrangesize": ports,
				"metricsaddress": address, "portquarantine": "2s",
			}})
			s.served(o, len(wanted))
			kills := s.killBeside(a, o, *stealFor)
			for name, service := range o.Services() {
				s.isOf(a, name, service)
			}
			shown, _ := s.scrape(address)
			failed := shown["machineagent_backoffs_total"]
			t.Logf("%d needs, %d kills: %.0f starts, %.0f ports stolen, %.0f starts failed otherwise", len(wanted), kills,
				shown[`machineagent_spawns_total{result="started"}`], shown["machineagent_ports_stolen_total"], failed)
			if bad := failed + shown["machineagent_ports_stolen_total"]; !c.fails && bad > 0 {
				t.Errorf("%.0f starts failed:\n%s", bad, s.failures(a))
			}
		})
	}
}

// failures are the lines of an agent's log that tell of one.
func (s *stage) failures(a *lab.Agent) string {
	s.t.Helper()
	text, err := os.ReadFile(a.Program.Log)
	s.must(err)
	return strings.Join(regexp.MustCompile(`(?m)^.*(\[WARN\]|\[ERROR\]|failures=[1-9]).*$`).FindAllString(string(text), -1), "\n")
}

// killBeside kills several processes at a time, again and again, and waits each
// time until all are served again. It tells how many it has killed.
func (s *stage) killBeside(a *lab.Agent, o *lab.Observer, d time.Duration) (kills int) {
	s.t.Helper()
	for begin := time.Now(); time.Since(begin) < d; {
		seen := len(o.Changes())
		all := s.running(a)
		victims := slices.Collect(maps.Keys(all))
		rand.Shuffle(len(victims), func(a, b int) { victims[a], victims[b] = victims[b], victims[a] })
		victims = victims[:max(min(8, len(victims)), len(victims)/10)]
		for _, name := range victims {
			s.kill(all[name])
			kills++
		}
		for _, name := range victims {
			s.must(o.AwaitAgain(s.ctx, seen, name))
		}
		s.must(o.Await(s.ctx, "all are served again", func(m *table.Mirror) bool { return m.Len() == len(all) }))
	}
	return kills
}

// isOf makes sure that it is the process of an instance that answers on the port of
// its service.
func (s *stage) isOf(a *lab.Agent, name string, service table.Service) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", service.Ports.HTTP), nil)
	s.must(err)
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	s.must(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	s.must(err)
	if want := fmt.Sprintf("hello from %s, pid %d", name, s.process(a, name).GetPid()); strings.TrimSpace(string(text)) != want {
		s.t.Errorf("on port %d of %s answers %q, want %q", service.Ports.HTTP, name, text, want)
	}
}
