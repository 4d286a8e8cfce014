//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

const (
	leaversLAN   = "LEAVER_LAN"   // address of the LAN manager
	leaversDir   = "LEAVER_DIR"   // where those who were told to end leave a file
	leaversCount = "LEAVER_COUNT" // how many there are
)

// leaver listens on its HTTP port. Told to end, it says whether the LAN still
// has its service, and ends when all others have been told to as well.
func leaver(ctx context.Context) error {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	l, err := net.Listen("tcp", ":"+os.Getenv("HTTP_PORT"))
	if err != nil {
		return err
	}
	defer l.Close()
	<-told
	o, err := lab.Observe(ctx, os.Getenv(leaversLAN))
	if err != nil {
		return err
	}
	defer o.Close()
	instance := os.Getenv("MACHINEAGENT_INSTANCE")
	_, there := o.Services()[instance]
	fmt.Println(instance, "is on the table:", there)

	count, err := strconv.Atoi(os.Getenv(leaversCount))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(os.Getenv(leaversDir), instance), nil, 0o600); err != nil {
		return err
	}
	for {
		all, err := os.ReadDir(os.Getenv(leaversDir))
		if err != nil || len(all) == count {
			return err
		}
		<-time.After(5 * time.Millisecond)
	}
}

// What is stopped leaves the LAN's table first. Many are stopped at a time: none
// of these ends before all have been told to.
func TestStopLeavesTheTableFirst(t *testing.T) {
	t.Parallel()
	const count = 6
	s := newStage(t)
	manager := s.lan(needs(count, "leaver")...)
	o := s.observe(manager)
	dir := filepath.Join(s.lab.Dir, "left")
	s.must(os.Mkdir(dir, 0o700))
	module := s.role("leaver", map[string]string{leaversLAN: manager.Address, leaversDir: dir, leaversCount: strconv.Itoa(count)})
	module["stop"] = map[string]string{"grace": "100ms", "timeout": "50s"}
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"leaver": module}})
	s.served(o, count)
	logs := map[string]string{}
	for instance, p := range s.running(a) {
		logs[instance] = p.GetLogFile()
	}
	s.must(a.Shutdown(s.ctx))
	if code := a.ExitCode(); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
	said := a.Output()
	if strings.Contains(said, "killed with its tree") {
		t.Error("they were not all told to end at the same time")
	}
	for instance, log := range logs {
		text, err := os.ReadFile(log)
		s.must(err)
		late := strings.Contains(said, "its process is stopped all the same: instance="+instance)
		if !strings.Contains(string(text), instance+" is on the table: false") && !late {
			t.Errorf("%s said %q", instance, text)
		}
	}
}

// A stop gives those who have the service its grace, and whoever ends meanwhile
// is not waited for.
func TestStopHasItsGrace(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(append(needs(1, "brief"), needs(1, "long")...)...)
	o := s.observe(manager)
	const grace = 300 * time.Millisecond
	brief, long := s.hello(), s.hello()
	brief["modulename"], brief["stop"] = "brief", map[string]string{"grace": grace.String()}
	long["modulename"], long["stop"] = "long", map[string]string{"grace": "1h"}
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"brief": brief, "long": long}})
	s.served(o, 2)

	began := time.Now()
	stop := func(instance string) {
		_, err := a.Client.Processes.StopProcess(s.ctx, &pb.StopProcessRequest{Instance: instance})
		s.must(err)
	}
	ended := func(instance, reason string) {
		s.until(func() string {
			if p := s.process(a, instance); p.GetState() != pb.ProcessState_PROCESS_STATE_ENDED || !strings.Contains(p.GetLastReason(), reason) {
				return p.String()
			}
			return ""
		})
	}
	stop("brief-0")
	ended("brief-0", "exit code 0")
	if took := time.Since(began); took < grace {
		t.Errorf("it was told to end after %s", took)
	}

	stop("long-0")
	s.served(o, 0)
	if p := s.process(a, "long-0"); p.GetState() != pb.ProcessState_PROCESS_STATE_STOPPING || p.GetPid() == 0 {
		t.Errorf("in its grace it is %v", p)
	}
	s.tell(a, "long-0", "SIGKILL")
	ended("long-0", "stopped by an operator (signal SIGKILL)")
	if p := s.process(a, "long-0"); p.GetFailures() != 0 {
		t.Errorf("a planned end counts as a failure: %v", p)
	}
}

// obedient serves ChildService and ends when it is asked to there; of signals it
// only speaks.
func obedient(context.Context) error {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	service, err := net.Listen("unix", fmt.Sprintf("/tmp/allexprocess.%d", os.Getpid()))
	if err != nil {
		return err
	}
	http, err := net.Listen("tcp", ":"+os.Getenv("HTTP_PORT"))
	if err != nil {
		return err
	}
	defer http.Close()
	server := grpc.NewServer()
	child := &childService{asked: make(chan *pb.StopRequest, 1)}
	pb.RegisterChildServiceServer(server, child)
	served := make(chan error, 1)
	go func() { served <- server.Serve(service) }()
	for {
		select {
		case s := <-told:
			fmt.Println("signal", s)
		case r := <-child.asked:
			fmt.Printf("asked to end within %s: %s\n", r.GetTimeout().AsDuration(), r.GetReason())
			server.GracefulStop()
			return <-served
		}
	}
}

type childService struct {
	pb.UnsafeChildServiceServer
	asked chan *pb.StopRequest
}

func (c *childService) Stop(_ context.Context, r *pb.StopRequest) (*pb.StopResponse, error) {
	c.asked <- r
	return &pb.StopResponse{}, nil
}

// A child that serves ChildService is asked over it, and gets no signal.
func TestStopByChildService(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "obedient")...)
	o := s.observe(manager)
	module := s.role("obedient", nil)
	module["stop"] = map[string]string{"timeout": "50s"}
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"obedient": module}})
	s.served(o, 1)
	log := s.process(a, "obedient-0").GetLogFile()
	out, err := a.Ctl(s.ctx, "stop", "obedient-0")
	if err != nil {
		t.Fatal(out)
	}
	s.until(func() string {
		if p := s.process(a, "obedient-0"); p.GetState() != pb.ProcessState_PROCESS_STATE_ENDED {
			return p.String()
		}
		return ""
	})
	if reason := s.process(a, "obedient-0").GetLastReason(); reason != "stopped by an operator (exit code 0)" {
		t.Errorf("it ended: %s", reason)
	}
	said, err := os.ReadFile(log)
	s.must(err)
	if string(said) != "asked to end within 50s: stopped by an operator\n" {
		t.Errorf("it said %q", said)
	}
}

// A child that was killed leaves no socket.
func TestSocketOfAKilledChild(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "obedient")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"obedient": s.role("obedient", nil)}})
	s.served(o, 1)
	killed := s.process(a, "obedient-0").GetPid()
	socket := fmt.Sprintf("/tmp/allexprocess.%d", killed)
	_, err := os.Lstat(socket)
	s.must(err)
	s.tell(a, "obedient-0", "SIGKILL")
	s.until(func() string {
		if pid := s.process(a, "obedient-0").GetPid(); pid == 0 || pid == killed {
			return fmt.Sprintf("process %d is not replaced", killed)
		}
		return ""
	})
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("%s: %v, want it gone", socket, err)
	}
}

// Whoever else listens where a child would is not asked to end, and the child
// gets its signal.
func TestStopByChildServiceOfAStranger(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	_, _, a := s.serving(1)
	stranger, err := net.Listen("unix", fmt.Sprintf("/tmp/allexprocess.%d", s.process(a, "hello-0").GetPid()))
	s.must(err)
	server := grpc.NewServer()
	service := &childService{asked: make(chan *pb.StopRequest, 1)}
	pb.RegisterChildServiceServer(server, service)
	served := make(chan error, 1)
	go func() { served <- server.Serve(stranger) }()
	s.must(a.Shutdown(s.ctx))
	server.Stop()
	s.must(<-served)
	if len(service.asked) != 0 {
		t.Error("a stranger was asked to end")
	}
	if said := a.Output(); !strings.Contains(said, "exit=\"exit code 0\"") || strings.Contains(said, "killed with its tree") {
		t.Error("the child did not end by its signal")
	}
}
