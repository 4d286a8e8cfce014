package client

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const nobody = 65534

// The same with a true other user, for which the test has to be root; the
// kernel's word is then the only difference between the two servers.
func TestSquattedSocket(t *testing.T) {
	path := startSquatter(t)
	patience := time.Second // with our own squatter, who is mute
	if os.Getuid() == 0 {
		patience = 20 * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := getStatus(ctx, dial(t, path))
	if os.Getuid() != 0 {
		// Then the squatter was ourselves: found trustworthy, and mute.
		if errors.Is(err, ErrStranger) || err == nil {
			t.Fatalf("our own socket: %v", err)
		}
		return
	}
	checkStranger(t, err, path)
}

func startSquatter(t *testing.T) (path string) {
	t.Helper()
	dir, binary := forAnybody(t)
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

// forAnybody makes a directory into which anybody may write, with this binary in
// it, which nobody could not reach where go test put it.
func forAnybody(t *testing.T) (dir, binary string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "client")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary = filepath.Join(dir, "binary")
	image, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(binary, image, 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	return dir, binary
}
