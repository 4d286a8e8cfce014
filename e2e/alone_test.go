//go:build linux

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/allexgo/machine-agent/client"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// This file is about an agent from which others have gone.

// An agent goes on when whoever read its log has ended.
func TestNobodyReadsTheLog(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	_, o, a := s.serving(1)
	s.must(a.Leave())

	read, write, err := os.Pipe()
	s.must(err)
	cmd := exec.Command(filepath.Join(s.lab.Bin, "agentd"), "--directory", a.Directory)
	cmd.Stdout, cmd.Stderr = write, write
	s.must(cmd.Start())
	write.Close()
	read.Close()
	c, err := client.Dial("unix:" + a.Socket)
	s.must(err)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if _, err := c.Agent.Shutdown(context.WithoutCancel(s.ctx), &pb.ShutdownRequest{}); err != nil {
			t.Error(err)
			cmd.Process.Kill()
		}
		if err := <-ended; err != nil {
			t.Error("the agent ended with ", err)
		}
		c.Close()
	})
	s.until(func() string {
		_, err := c.Agent.GetStatus(s.ctx, &pb.GetStatusRequest{})
		if err != nil {
			return err.Error()
		}
		return ""
	})
	first, seen := s.child("hello-0"), len(o.Changes())
	first.Kill()
	s.must(o.AwaitAgain(s.ctx, seen, "hello-0"))
}

// An agent that has never seen the LAN's tables does not say that nobody needs what
// it has.
func TestPlaceBeforeTheFirstSession(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	manager, _, a := s.serving(1)
	s.settled(a, 1)
	s.must(a.Leave())
	s.must(manager.Stop(15))
	a = s.again("machine")
	if place := s.process(a, "hello-0").GetPlace(); place != pb.ProcessPlace_PROCESS_PLACE_UNSPECIFIED {
		t.Errorf("without a LAN manager its place is %v", place)
	}
	out, err := a.Ctl(s.ctx, "ps")
	if err != nil || strings.Contains(out, "UNNEEDED") {
		t.Errorf("agentctl ps: %v\n%s", err, out)
	}
}
