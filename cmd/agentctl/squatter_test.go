//go:build !windows

package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const (
	squatterVariable = "AGENTCTL_TEST_SQUAT"
	nobody           = 65534
)

// squat is the test binary in the role of another user who was there before
// the agent. It listens, mute, until its standard input ends.
func squat(path string) {
	l, err := net.Listen("unix", path)
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Stdout.WriteString("listening\n")
	io.Copy(io.Discard, os.Stdin)
	l.Close()
}

func TestSquattedSocket(t *testing.T) {
	path := startSquatter(t)
	mute := "agentctl: the agent at " + path + " did not answer in time\n" +
		"  what to do: `agentctl doctor` finds out why, and --timeout allows more time\n"
	if os.Getuid() == 0 {
		check(t, exitFailed, "agentctl: "+path+" is served by uid 65534, which is neither root nor you\n"+
			"  what to do: find out whose it is; if your agent runs as that user, name him with --agent-user or MACHINEAGENT_USER\n",
			"status", "--address", path)
	}
	// A user who is trusted is listened to, although this one has nothing to
	// say. Without root the squatter is ourselves, who always are.
	for _, user := range []string{"65534", "nobody"} {
		for _, command := range []string{"status", "logs x", "logs -f x", "watch", "events"} {
			check(t, exitFailed, mute, append(strings.Fields(command), "--address", path, "--timeout", "100ms", "--agent-user", user)...)
		}
	}
}

func startSquatter(t *testing.T) (path string) {
	t.Helper()
	// A directory into which anybody may write, with the binary in it, which
	// nobody could not reach where go test put it.
	dir, err := os.MkdirTemp("", "squat")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "squatter")
	if err := errors.Join(os.WriteFile(binary, image, 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "agent.sock")
	cmd := exec.Command(binary)
	cmd.Env = []string{squatterVariable + "=" + path}
	cmd.Stderr = os.Stderr
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if _, err := io.ReadFull(out, make([]byte, len("listening\n"))); err != nil {
		t.Fatalf("the squatter did not start: %v", err)
	}
	return path
}
