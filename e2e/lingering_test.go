//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/allexgo/machine-agent/e2e/lab"
)

// What is left of one process does not end before its disk goes on. An upgrade
// meanwhile does not wait for it so long that the LAN manager takes the machine for
// gone, and all others stay served.
func TestUpgradeWhileOneLingers(t *testing.T) {
	t.Parallel()
	disk := realDisk(t)
	s := newStage(t)
	writer := s.hello()
	writer["modulename"] = "writer"
	writer["command"] = []string{"sh", "-c", `(while echo more; do :; done >"$0") & exec "$1"`, filepath.Join(disk, "text"), filepath.Join(s.lab.Bin, "hello")}
	manager := s.lan(append(needs(2, "hello"), needs(1, "writer")...)...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"hello": s.hello(), "writer": writer}})
	s.served(o, 3)
	s.settled(a, 3)
	before := s.running(a)
	thaw := s.freeze(disk)

	seen := len(o.Changes())
	s.must(syscall.Kill(int(before["writer-0"].GetPid()), syscall.SIGKILL))
	s.until(func() string {
		if downs, _ := changes(o, seen, "writer-0"); len(downs) == 1 {
			return ""
		}
		return fmt.Sprintf("writer-0 was not reported: %v", o.Changes()[seen:])
	})
	s.ok(a, "upgrade")
	s.linked(a)
	s.settled(a, 2)
	for _, c := range o.Changes()[seen:] {
		if !c.Up && c.Instance != "writer-0" {
			t.Errorf("%s was off the table: %v", c.Instance, c)
		}
	}
	after := s.running(a)
	for _, instance := range []string{"hello-0", "hello-1"} {
		if was, is := before[instance].GetPid(), after[instance].GetPid(); is != was {
			t.Errorf("%s is process %d, it was %d", instance, is, was)
		}
	}
	thaw()
	s.until(func() string { // lest it keeps the disk busy
		if left := s.lab.Children()["writer-0"]; len(left) > 0 {
			return fmt.Sprintf("there are %v", left)
		}
		return ""
	})
}
