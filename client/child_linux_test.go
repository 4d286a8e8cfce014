package client

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Nobody but root and the child's own user gets an answer, even if the socket's
// file lets everybody in. For the other user the test has to be root.
func TestChildHangsUpOnStrangers(t *testing.T) {
	asChild(t, "")
	_, binary := forAnybody(t)
	runChild(t, func(context.Context, *Child) error {
		caller := func(uid uint32) string {
			cmd := exec.Command(binary)
			cmd.Env = []string{strangerVariable + "=" + ownSocket()}
			if uid != uint32(os.Getuid()) {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Error(err)
			}
			return string(out)
		}
		if said := caller(uint32(os.Getuid())); said != "served\n" {
			t.Errorf("our own user is %s", said)
		}
		if os.Getuid() != 0 {
			return nil
		}
		if said := caller(nobody); said != "kept out\n" {
			t.Errorf("nobody is %s", said)
		}
		if err := os.Chmod(ownSocket(), 0o666); err != nil {
			return err
		}
		if said := caller(nobody); !strings.HasPrefix(said, "hung up") {
			t.Errorf("nobody, through an open file, is %s", said)
		}
		return nil
	})
}

// A socket that the agent passed is the one that is used, and only for its
// protocol.
func TestListenTakesWhatWasPassed(t *testing.T) {
	asChild(t, "")
	var files []*os.File
	var address string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, address = append(files, f), l.Addr().String()
	}
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), passedVariable+"=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=tcp:http")
	cmd.ExtraFiles, cmd.Stderr = files, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	if line, err := said.ReadString('\n'); line != address+" true\n" {
		t.Errorf("it listens on %q, %v, want %s", line, err, address)
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if text, err := io.ReadAll(conn); string(text) != "hello" {
		t.Errorf("it said %q, %v", text, err)
	}
	rest, _ := io.ReadAll(said)
	if err := cmd.Wait(); err != nil || string(rest) != "<nil>\n" {
		t.Errorf("it ended with %v: %s", err, rest)
	}
}
