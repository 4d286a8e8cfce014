package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the test binary the service itself when a test asks for it.
func TestMain(m *testing.M) {
	if os.Getenv("HELLO_TEST_CHILD") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// child starts the service with the given environment besides its own.
func child(t *testing.T, env ...string) (cmd *exec.Cmd, stdout *bufio.Scanner, stderr *bytes.Buffer) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(env, "HELLO_TEST_CHILD=1", "MACHINEAGENT_INSTANCE=Hello 1")
	stderr = new(bytes.Buffer)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, bufio.NewScanner(out), stderr
}

// freePorts finds n ports that were free a moment ago.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func line(t *testing.T, s *bufio.Scanner) string {
	t.Helper()
	if !s.Scan() {
		t.Fatalf("no line: %v", s.Err())
	}
	return s.Text()
}

func TestServesAndEnds(t *testing.T) {
	ports := freePorts(t, 3)
	cmd, stdout, stderr := child(t,
		fmt.Sprintf("HTTP_PORT=%d", ports[0]), fmt.Sprintf("WS_PORT=%d", ports[1]), fmt.Sprintf("TCP_PORT=%d", ports[2]))
	greeting := fmt.Sprintf("hello from Hello 1, pid %d", cmd.Process.Pid)
	for i, variable := range []string{"HTTP_PORT", "WS_PORT", "TCP_PORT"} {
		if got, want := line(t, stdout), fmt.Sprintf("%s; %s is %d", greeting, variable, ports[i]); got != want {
			t.Errorf("printed %q, want %q", got, want)
		}
	}

	for _, port := range ports[:2] {
		if got := get(t, port); got != greeting+"\n" {
			t.Errorf("HTTP on port %d answers %q", port, got)
		}
	}
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[2]))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, "is anybody there?")
	caller := bufio.NewScanner(c)
	for _, want := range []string{greeting, "is anybody there?"} {
		if got := line(t, caller); got != want {
			t.Errorf("TCP answers %q, want %q", got, want)
		}
	}

	// The caller that is still there does not hold it up.
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := line(t, stdout); got != "ended" {
		t.Errorf("printed %q at its end", got)
	}
	if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("ended with %v: %s", err, stderr)
	}
	if caller.Scan() || caller.Err() != nil {
		t.Errorf("the caller got %q, %v, want an orderly end", caller.Text(), caller.Err())
	}
}

func get(t *testing.T, port int) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRefuses(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	for _, tt := range []struct {
		name string
		env  []string
		want string
	}{
		{"no port", nil, "hello: nothing to listen on: set HTTP_PORT, WS_PORT or TCP_PORT\n"},
		{"a taken port", []string{fmt.Sprintf("TCP_PORT=%d", taken)}, "hello: TCP_PORT: listen tcp "},
		{"a taken port beside a free one", []string{"HTTP_PORT=0", fmt.Sprintf("TCP_PORT=%d", taken)}, "hello: TCP_PORT: listen tcp "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd, _, stderr := child(t, tt.env...)
			if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.HasPrefix(stderr.String(), tt.want) {
				t.Errorf("ended with %v: %q, want %q", err, stderr, tt.want)
			}
		})
	}
}
