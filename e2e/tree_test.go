//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// family is a leader whose server runs in the background, in a session of its
// own if SETSID says so. Before anything else it notes whether the server that
// was started before it is still there, which must never be.
const family = `
if [ -s "$SERVERS" ]; then
	old=$(tail -n 1 "$SERVERS")
	if [ -e "/proc/$old/stat" ] && read -r _ _ state _ <"/proc/$old/stat" && [ "$state" != Z ]; then
		echo "$old is alive" >>"$SURVIVORS"
	fi
fi
trap 'exit 3' USR1
$SETSID "$HELLO" &
echo $! >>"$SERVERS"
wait`

// However a leader ends, nothing of its tree is left when its replacement
// starts, which gets the same port.
func TestTreeGoesWithItsLeader(t *testing.T) {
	leave := leavingSession()
	for name, test := range map[string]struct {
		signal string
		exit   *pb.ExitStatus
	}{
		"killed":          {"SIGKILL", &pb.ExitStatus{Status: &pb.ExitStatus_Signal{Signal: "SIGKILL"}}},
		"ended by itself": {"SIGUSR1", &pb.ExitStatus{Status: &pb.ExitStatus_Code{Code: 3}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			manager := s.lan(needs(1, "family")...)
			o := s.observe(manager)
			servers, survivors := filepath.Join(s.lab.Dir, "servers"), filepath.Join(s.lab.Dir, "survivors")
			module := s.hello()
			module["modulename"], module["command"] = "family", []string{"sh", "-c", family}
			module["backoff"] = map[string]string{"initial": "0s", "reset": "1h"} // every end of it counts
			module["environment"] = map[string]string{
				"HELLO": filepath.Join(s.lab.Bin, "hello"), "SERVERS": servers, "SURVIVORS": survivors, "SETSID": leave,
			}
			a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"family": module}})
			s.served(o, 1)
			before, service := s.process(a, "family-0"), o.Services()["family-0"]
			server := s.serverOf(int(before.GetPid()))
			death, err := unix.PidfdOpen(server.PID, 0)
			s.must(err)
			defer unix.Close(death)

			seen := len(o.Changes())
			_, err = a.Client.Processes.SignalProcess(s.ctx, &pb.SignalProcessRequest{Instance: "family-0", Signal: test.signal})
			s.must(err)
			s.must(o.AwaitAgain(s.ctx, seen, "family-0"))
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(death), Events: unix.POLLIN}}, 0); n != 1 {
				t.Errorf("the old server, process %d, lives beside the replacement (%v)", server.PID, err)
			}
			if text, err := os.ReadFile(survivors); err == nil {
				t.Errorf("when the replacement started, the old server lived: %s", text)
			}
			if now := o.Services()["family-0"]; now.Ports != service.Ports {
				t.Errorf("ports %+v, want %+v again", now.Ports, service.Ports)
			}
			after := s.process(a, "family-0")
			if got, want := after.GetLastExit().String(), test.exit.String(); got != want {
				t.Errorf("it ended with %s, want %s", got, want)
			}
			if after.GetFailures() != before.GetFailures()+1 {
				t.Errorf("%d failures, want one: %s", after.GetFailures(), after.GetLastReason())
			}
			s.started(map[string]lab.Child{"": server, "now": s.serverOf(int(after.GetPid()))})
		})
	}
}

// leavingSession is the command by which a server leaves the session of its
// leader. Then it can only be found by its cgroup: without one it has to stay.
func leavingSession() string {
	root, err := process.Cgroups("machine-agent-e2e")
	if err != nil {
		return ""
	}
	_ = process.RemoveCgroups(root) // it is empty
	return "setsid"
}

// serverOf is the other process of the family.
func (s *stage) serverOf(leader int) lab.Child {
	s.t.Helper()
	all := s.lab.Children()["family-0"]
	var server lab.Child
	for _, c := range all {
		if c.PID != leader {
			server = c
		}
	}
	if len(all) != 2 || !strings.Contains(server.Command, "hello") {
		s.t.Fatalf("the family of process %d is %v", leader, all)
	}
	return server
}
