package main

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary is the program itself when it is told so.
func TestMain(m *testing.M) {
	if os.Getenv("LANMANAGER_TEST_MAIN") != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

func program(t *testing.T, arguments ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, arguments...)
	c.Env = append(os.Environ(), "LANMANAGER_TEST_MAIN=1")
	return c
}

func TestRunsUntilItIsToldToEnd(t *testing.T) {
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		c := program(t, "--directory", t.TempDir(), "--listen", "127.0.0.1:0")
		log, err := c.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Minute, func() { c.Process.Kill() })
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			_, rest, ok := strings.Cut(lines.Text(), "listens: address=")
			if !ok {
				continue
			}
			address, _, _ := strings.Cut(rest, " ")
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Errorf("%s: %v", lines.Text(), err)
			} else {
				conn.Close()
			}
			c.Process.Signal(s)
		}
		if err := c.Wait(); err != nil {
			t.Errorf("after %s: %v", s, err)
		}
		kill.Stop()
	}
}

// Who has started it ends it with its standard input, and with its own end.
func TestRunsUntilStandardInputEnds(t *testing.T) {
	c := program(t, "--directory", t.TempDir(), "--listen", "127.0.0.1:0", "--page", "127.0.0.1:0", "--until-stdin-ends")
	input, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Minute, func() { c.Process.Kill() })
	defer kill.Stop()
	page := false
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if strings.Contains(lines.Text(), "page of the LAN") {
			page = true
			c.Process.Signal(os.Interrupt)
			input.Close()
		}
	}
	if err := c.Wait(); err != nil || !page {
		t.Errorf("ended with %v, page %v", err, page)
	}
}

func TestMistakes(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		arguments []string
		code      int
		says      string
	}{
		{[]string{"--nosuch"}, 2, "nosuch"},
		{[]string{"--log-level", "loud"}, 2, "--log-level"},
		{[]string{"argument"}, 2, "no arguments"},
		{[]string{"--directory", t.TempDir(), "--listen", taken.Addr().String()}, 1, "can not listen on " + taken.Addr().String()},
		{[]string{"--directory", os.DevNull}, 1, os.DevNull},
	} {
		p := program(t, c.arguments...)
		var said bytes.Buffer
		p.Stderr = &said
		p.Run()
		if code := p.ProcessState.ExitCode(); code != c.code || !strings.Contains(said.String(), c.says) {
			t.Errorf("%v: exit code %d, says %s", c.arguments, code, said.String())
		}
	}
}
