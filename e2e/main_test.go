//go:build linux

// Package e2e holds the whole-way tests: the built programs as real processes
// with real sockets on this machine's loopback, seen from outside, through the
// LAN's tables, the agents' API and the system's list of processes. Package lab
// runs the programs; the tests' own roles are in role_test.go.
package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain builds the programs once, and sees to it that the tests leave no
// goroutine, no process and no file behind.
func TestMain(m *testing.M) {
	if play() {
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// run runs the tests with a directory of their own as TMPDIR: whatever they
// start has that in its environment and can be found by it. Sockets have short
// names, so it is not below t.TempDir.
func run(m *testing.M) (code int, err error) {
	root, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	if err := build(filepath.Join(root, "bin")); err != nil {
		return 1, err
	}
	if err := os.Setenv("TMPDIR", root); err != nil {
		return 1, err
	}
	code = m.Run()
	if code != 0 {
		return code, nil
	}
	return code, errors.Join(goleak.Find(), processesLeft(root), filesLeft(root))
}

// build makes the programs, from what make has compiled for bin/, and the grpcurl
// that this project pins, which may take minutes the first time. They are linked
// without what only debuggers need, which is most of a link's work.
func build(bin string) error {
	if err := compile(bin, "-tags", "grpcnotrace", "../cmd/...", "../examples/..."); err != nil {
		return err
	}
	return compile(bin, "-modfile=../tools/grpcurl/go.mod", "github.com/fullstorydev/grpcurl/cmd/grpcurl")
}

// compile makes programs in a directory.
func compile(bin string, what ...string) error {
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", bin + "/"}, what...)
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("the programs can not be built: %w\n%s", err, out)
	}
	return nil
}

// ourBin is where the programs are.
func ourBin() string { return filepath.Join(os.TempDir(), "bin") }

// processesLeft is an error that names the processes that the tests started.
func processesLeft(root string) error {
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range environments {
		text, _ := os.ReadFile(name) // it may be gone by now
		if strings.Contains(string(text), "TMPDIR="+root+"\x00") && filepath.Dir(name) != fmt.Sprintf("/proc/%d", os.Getpid()) {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
			err = errors.Join(err, fmt.Errorf("a process is left: %s %q", filepath.Dir(name), command))
		}
	}
	return err
}

// filesLeft is an error that names what the tests left in their directory.
func filesLeft(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || path == root:
			return err
		case path == filepath.Join(root, "bin"):
			return fs.SkipDir
		}
		return fmt.Errorf("a file is left: %s", path)
	})
}
