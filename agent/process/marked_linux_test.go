package process

import (
	"fmt"
	"os"
	"slices"
	"testing"
)

// The mark finds a process and what it started, and nobody else; it tells which
// of them is the leader.
func TestFindMarked(t *testing.T) {
	mark := fmt.Sprintf("MARK_OF_A_TEST=%d", os.Getpid()) // and of no other run of it
	trees(t, func(t *testing.T, cgroup string) {
		other := as(t, "wait")
		other.Env = append(other.Env, mark+"!")
		start(t, other)
		s := as(t, "wait")
		s.Argv = []string{"/bin/sh", "-c", "sh -c 'echo ready; kill -STOP $$' & wait"}
		s.Cgroup, s.Env = cgroup, append(s.Env, mark)
		leader := start(t, s)
		lines(t, s.Log, 1)
		all, err := FindMarked(mark)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(m Marked) bool { return m.Identity.PID == leader.Identity().PID })
		if len(all) != 2 || i < 0 {
			t.Fatalf("found %+v, want %d and its child", all, leader.Identity().PID)
		}
		found := all[i]
		if !found.Leader || !slices.Contains(found.Environment, mark) {
			t.Errorf("found %+v", found)
		}
		if cgroup != "" && found.Identity != leader.Identity() {
			t.Errorf("found %+v, want %+v", found.Identity, leader.Identity())
		}
		for _, m := range all {
			if m.Identity.PID == os.Getpid() {
				t.Error("found itself")
			}
		}
	})
}
