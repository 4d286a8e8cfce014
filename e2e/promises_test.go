//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/e2e/lab"
	"github.com/allexgo/machine-agent/lan/table"
)

// This file is how the promises of design section 9 are looked at from outside.

// recovered waits until every need is served by one process on the whole LAN.
func (r *trial) recovered() {
	var o *lab.Observer
	defer func() {
		if o != nil {
			o.Close()
		}
	}()
	var of *lab.LANManager
	r.until(func() string {
		r.nurse()
		if of != r.manager || o == nil {
			if o != nil {
				o.Close()
			}
			var err error
			if o, err = lab.Observe(r.ctx, r.manager.Address); err != nil {
				o = nil
				return err.Error()
			}
			of = r.manager
		}
		all, services := r.lab.Children(), o.Services()
		if n := len(r.instances); total(all) != n || len(services) != n {
			return fmt.Sprintf("%d processes, %d services; want %d of each: %v", total(all), len(services), n, all)
		}
		return r.agree(services)
	})
}

// agree is where the LAN, the agents and the system do not tell the same story
// (promises 1 to 3); empty if they do.
func (r *trial) agree(services map[string]table.Service) string {
	children, known, told := r.lab.Children(), map[string]table.Ports{}, map[string]table.Ports{}
	for _, a := range r.agents {
		running, err := r.processes(a)
		if err != nil {
			return err.Error() // it may have met its fault
		}
		for name, p := range running {
			ports := p.GetPorts()
			known[name] = table.Ports{TCP: int(ports.GetTcp()), HTTP: int(ports.GetHttp()), WS: int(ports.GetWs())}
			if of := children[name]; len(of) != 1 || of[0].PID != int(p.GetPid()) || of[0].Agent != a.Name {
				return fmt.Sprintf("%s has %v, the system has %v", a.Name, p, of)
			}
		}
	}
	for name, service := range services {
		told[name] = service.Ports
	}
	return cmp.Diff(told, known)
}

// promises holds what has happened against what always holds.
func (r *trial) promises() {
	for _, child := range r.singles() {
		r.spoken(child)
	}
	for _, a := range r.agents {
		r.endsOnce(a)
		r.lean(a)
	}
}

// processEnded is a line of an agent's log.
var processEnded = regexp.MustCompile(`(\d{4}-\S+Z) .*process ended: (instance=\S+ pid=(\d+)) exit=(?:"[^"]*"|\S+)(?: ran=(\S+))? `)

// endsOnce makes sure that no agent has told the end of one process twice, and
// never of a process that lives (promise 3). One that has the pid of another that
// ended before it was born is not meant: in minutes that comes to pass.
func (r *trial) endsOnce(a *lab.Agent) {
	text, err := os.ReadFile(a.Log)
	r.must(err)
	born := map[string]time.Time{}
	for _, all := range r.lab.Children() {
		for _, c := range all {
			born[strconv.Itoa(c.PID)] = c.Born()
		}
	}
	ends := 0
	for _, run := range strings.Split(string(text), "agent starts:") {
		told := map[string]time.Time{}
		for _, end := range processEnded.FindAllStringSubmatch(run, -1) {
			at, err := time.Parse(time.RFC3339, end[1])
			r.must(err)
			began := time.Time{}
			if end[4] != "" {
				ran, err := time.ParseDuration(end[4])
				r.must(err)
				began = at.Add(-ran)
			}
			since, lives := born[end[3]]
			if told[end[2]].After(began) || lives && since.Before(at) {
				r.t.Errorf("%s told twice, or of a living process: %s", a.Name, end[0])
			}
			told[end[2]] = at
			ends++
		}
	}
	if all := strings.Count(string(text), ": process ended: "); ends != all {
		r.t.Errorf("%s has told %d ends, of which %d could be read", a.Name, all, ends)
	}
}

// lean makes sure that threads do not grow with the children, and descriptors
// only by a fixed number a child (promise 8).
func (r *trial) lean(a *lab.Agent) {
	const threads, descriptors, eachChild = 24, 64, 8
	proc := fmt.Sprintf("/proc/%d/", a.PID())
	tasks, err := os.ReadDir(proc + "task")
	r.must(err)
	open, err := os.ReadDir(proc + "fd")
	r.must(err)
	if len(tasks) > threads || len(open) > descriptors+eachChild*len(r.instances) {
		r.t.Errorf("%s has %d threads and %d descriptors for at most %d children", a.Name, len(tasks), len(open), len(r.instances))
	}
}

// spoken makes sure that no line of a talker is lost, of those before it neither
// (promise 4).
func (r *trial) spoken(c lab.Child) { r.talked(c.Agent) }

// talked makes sure that no line of the talkers of an agent is lost.
func (s *stage) talked(agent string) {
	s.t.Helper()
	logs, err := filepath.Glob(filepath.Join(s.lab.Dir, agent, ".allexmaster", "log", "talker-*.log"))
	s.must(err)
	for _, name := range logs {
		next := map[string]int{}
		for line := range bytes.Lines(s.said(name)) {
			if !bytes.HasSuffix(line, []byte("\n")) {
				break // the kernel shows a line that is being written page by page
			}
			var pid string
			var n int
			got, _ := fmt.Sscanf(string(line), "talker %s says %d", &pid, &n)
			if n == 0 {
				next[pid] = 0 // in minutes another process has that pid
			}
			if got != 2 || n != next[pid] {
				s.t.Fatalf("%s: found %q, wanted line %d of process %s", name, line, next[pid], pid)
			}
			next[pid]++
		}
	}
}

// said is all that is in a log, of which nothing was forgotten: its generations, and
// behind them what is in the file. The file is read first, since its head may go into
// one more generation meanwhile.
func (s *stage) said(log string) (all []byte) {
	s.t.Helper()
	rest, err := os.ReadFile(log)
	s.must(err)
	generations, err := filepath.Glob(log + ".*-*")
	s.must(err)
	for _, name := range generations { // in the order of their names
		var from, to int
		_, err := fmt.Sscanf(strings.TrimPrefix(name, log+"."), "%d-%d", &from, &to)
		s.must(err)
		text, err := os.ReadFile(name)
		s.must(err)
		if from != len(all) || to-from != len(text) {
			s.t.Fatalf("%s has %d bytes and comes behind byte %d", name, len(text), len(all))
		}
		all = append(all, text...)
	}
	return append(all, rest[min(len(all), len(rest)):]...)
}

// talkerLine is the environment variable that says how long a talker's lines are at
// least, in bytes.
const talkerLine = "TALKER_LINE"

// tireless is the environment variable of a talker that talks on when nobody takes it down.
const tireless = "TIRELESS"

// talker listens on its HTTP port, and says a numbered line every few
// milliseconds until it is asked to end, or nobody takes it down.
func talker() error {
	asked, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := listenHTTP()
	if err != nil {
		return err
	}
	defer l.Close()
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	length, _ := strconv.Atoi(os.Getenv(talkerLine)) // without it, as they come
	for n := 0; ; n++ {
		_, err := fmt.Printf("%-*s\n", length, fmt.Sprintf("talker %d says %d", os.Getpid(), n))
		if err != nil && os.Getenv(tireless) == "" {
			return err
		}
		select {
		case <-pause.C:
		case <-asked.Done():
			return nil
		}
	}
}

// bystander is a process that is none of any agent's.
type bystander struct {
	t    *testing.T
	cmd  *exec.Cmd
	said *bytes.Buffer
	end  func()
}

// startBystander starts one that has the agents' marks in its environment, as
// whoever was started by hand in a child's shell.
func startBystander(t *testing.T) *bystander {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &bystander{t: t, cmd: exec.Command(self), said: new(bytes.Buffer)}
	b.cmd.Env = append(os.Environ(), roleVariable+"=bystander", "MACHINEAGENT_INSTANCE=hello-0")
	b.cmd.Stdout = b.said
	in, err := b.cmd.StdinPipe()
	if err == nil {
		err = b.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	b.end = sync.OnceFunc(func() { _ = in.Close(); err = b.cmd.Wait() })
	t.Cleanup(b.end)
	return b
}

// check makes sure that nobody has signalled it (promise 5).
func (b *bystander) check() {
	b.end()
	if code := b.cmd.ProcessState.ExitCode(); code != 0 || b.said.Len() > 0 {
		b.t.Errorf("a process that is none of ours was signalled: exit code %d, %s", code, b.said)
	}
}

// bystanderRole tells of every signal, until its input ends.
func bystanderRole() error {
	told := make(chan os.Signal, 16)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range told {
			fmt.Println(s)
		}
	}()
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
