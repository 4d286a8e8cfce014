//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/allexgo/machine-agent/client"
	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// chatter says numbered lines, some thousand a second, each with its pid.
func chatter() error {
	l, err := net.Listen("tcp", ":"+os.Getenv("HTTP_PORT"))
	if err != nil {
		return err
	}
	defer l.Close()
	for n := 0; ; {
		for range 10 {
			fmt.Printf("%d %-80d\n", os.Getpid(), n)
			n++
		}
		<-time.After(time.Millisecond)
	}
}

// chatters is a module whose processes talk, and keep so much of it.
func (s *stage) chatters(keep int) map[string]lab.Module {
	module := s.role("chatter", nil)
	module["log"] = map[string]any{"maxsize": "64KiB", "keep": keep}
	return map[string]lab.Module{"chatter": module}
}

// listener follows a log, and checks that of each process every line comes once
// and in order.
type listener struct {
	*stage
	at   int64
	next map[string]int // the line that each process says next
	rest []byte
	in   grpc.ServerStreamingClient[pb.TailLogsResponse]
}

// listen goes on where the listener was.
func (l *listener) listen(a *lab.Agent) {
	l.t.Helper()
	var err error
	l.in, err = a.Client.Processes.TailLogs(l.ctx, &pb.TailLogsRequest{
		Instance: "chatter-0", Follow: true, Begin: &pb.TailLogsRequest_Position{Position: l.at}})
	l.must(err)
}

// hear takes the next piece.
func (l *listener) hear() error {
	l.t.Helper()
	piece, err := l.in.Recv()
	if err != nil {
		return err
	}
	if piece.GetPosition() != l.at || piece.GetMissing() != 0 {
		l.t.Fatalf("the piece at %d, with %d missing before it, comes at %d", piece.GetPosition(), piece.GetMissing(), l.at)
	}
	l.at += int64(len(piece.GetData()))
	l.rest = append(l.rest, piece.GetData()...)
	for {
		line, rest, complete := bytes.Cut(l.rest, []byte("\n"))
		if !complete {
			return nil
		}
		pid, number, _ := strings.Cut(string(line), " ")
		if number = strings.TrimSpace(number); number != fmt.Sprint(l.next[pid]) {
			l.t.Fatalf("process %s says %q where line %d should be", pid, number, l.next[pid])
		}
		l.next[pid]++
		l.rest = rest
	}
}

// lines listens until a process has said so many lines.
func (l *listener) lines(pid, n int) {
	l.t.Helper()
	for l.next[fmt.Sprint(pid)] < n {
		l.must(l.hear())
	}
}

// A log is followed by its position across rotation, the end of its agent, and
// the end of its process. No line is lost, and none comes twice.
func TestLogIsFollowed(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "chatter")...)
	o := s.observe(manager)
	files := lab.AgentFiles{LANManager: manager.Address, Modules: s.chatters(1000)}
	a := s.agent("machine", files)
	s.served(o, 1)
	first := s.child("chatter-0")
	l := &listener{stage: s, next: map[string]int{}}
	l.listen(a)
	l.lines(first.PID, 10_000)
	s.must(a.Program.Stop(syscall.SIGKILL))
	for err := error(nil); err == nil; err = l.hear() {
	}
	s.must(a.Client.Close())
	a = s.again("machine")
	l.listen(a)
	l.lines(first.PID, 2*l.next[fmt.Sprint(first.PID)])

	seen := len(o.Changes())
	first.Kill()
	s.must(o.AwaitAgain(s.ctx, seen, "chatter-0"))
	l.lines(s.child("chatter-0").PID, 5_000)
	s.until(func() string {
		generations, err := filepath.Glob(filepath.Join(a.Directory, ".allexmaster", "log", "chatter-0.log.*-*"))
		s.must(err)
		if len(generations) < 10 {
			return fmt.Sprintf("it was rotated %d times", len(generations))
		}
		return ""
	})
	if len(l.next) != 2 {
		t.Errorf("those who spoke: %v", l.next)
	}
	out, err := a.Ctl(s.ctx, "logs", "chatter-0", "-n", "3")
	s.must(err)
	heard := 0
	for _, n := range l.next {
		heard += n
	}
	if n := strings.Count(out, "\n"); n < 3 || n > heard/2 { // what was said meanwhile may come with it
		t.Errorf("the last three lines of more than %d are %d", heard, n)
	}
	s.must(a.Leave())
	for err = nil; err == nil; err = l.hear() {
	}
	if !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("the agent leaves, and the listener is told: %v", err)
	}
	s.again("machine")
}

// A process that says more than is kept takes only so much of the disk, and who
// asks for the rest is told that it is not there.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager := s.lan(needs(1, "chatter")...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: s.chatters(1)})
	s.served(o, 1)
	var last *pb.TailLogsResponse
	s.until(func() string {
		tail, err := a.Client.Processes.TailLogs(s.ctx, &pb.TailLogsRequest{
			Instance: "chatter-0", Begin: &pb.TailLogsRequest_Position{}})
		s.must(err)
		first, err := tail.Recv()
		if err == io.EOF {
			return "nothing is said yet"
		}
		s.must(err)
		for last = first; err == nil; {
			var piece *pb.TailLogsResponse
			if piece, err = tail.Recv(); err == nil {
				last = piece
			}
		}
		if err != io.EOF {
			t.Fatal(err)
		}
		if first.GetMissing() == 0 {
			return "nothing is missing yet"
		}
		if first.GetMissing() != first.GetPosition() {
			t.Errorf("of the bytes before %d, %d are missing", first.GetPosition(), first.GetMissing())
		}
		return ""
	})
	_, err := a.Client.Processes.StopProcess(s.ctx, &pb.StopProcessRequest{Instance: "chatter-0"})
	s.must(err)
	s.until(func() string {
		const most = 2*64<<10 + 16<<10
		if used := s.used(filepath.Join(a.Directory, ".allexmaster", "log")); used > most {
			return fmt.Sprintf("the log takes %d bytes of the disk, more than %d", used, most)
		}
		return ""
	})
	if last.GetPosition() < 64<<10 {
		t.Errorf("the last piece was at %d", last.GetPosition())
	}
}

// used is what the files of a directory take of the disk.
func (s *stage) used(dir string) (sum int64) {
	s.t.Helper()
	entries, err := os.ReadDir(dir)
	s.must(err)
	for _, e := range entries {
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(dir, e.Name()), &st); err == nil { // else it was removed
			sum += st.Blocks * 512
		}
	}
	return sum
}
