//go:build !windows

package client

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNobodyThere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, test := range []struct{ path, want string }{
		{filepath.Join(dir, "nothing"), "there is no such socket"},
		{file, "that is not a socket"},
		{dead, "nobody listens on that socket"},
	} {
		_, err := getStatus(t.Context(), dial(t, test.path))
		if !errors.Is(err, ErrNoAgent) || !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v, want ErrNoAgent", test.path, err)
			continue
		}
		for _, part := range []string{test.path, test.want, "agentd", AddressVariable} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", test.path, err, part)
			}
		}
	}
	_, err = getStatus(t.Context(), dial(t, filepath.Join(dir, strings.Repeat("x", 200))))
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNoAgent) {
		t.Errorf("a path that no socket can have: %v", err)
	}
}

// A server that runs as nobody the client trusts is not talked to.
func TestStranger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	f, _ := serve(t, path, hello)
	c := dial(t, path, func(d *dialer) { d.trusted = []int{os.Getuid() + 1} })
	_, err := getStatus(t.Context(), c)
	checkStranger(t, err, path)
	if f.calls != 0 {
		t.Error("it was called nevertheless")
	}
}

func checkStranger(t *testing.T, err error, path string) {
	t.Helper()
	if !errors.Is(err, ErrStranger) || errors.Is(err, ErrUnavailable) {
		t.Fatalf("%v, want ErrStranger", err)
	}
	for _, part := range []string{path, "uid", "TrustUser"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}
