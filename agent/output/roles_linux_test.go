package output

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The processes of these tests are the test binary itself in one of these roles.
const roleKey = "OUTPUT_TEST_ROLE"

func TestMain(m *testing.M) {
	roles := map[string]func(args []string) error{"write": write, "rotate": rotate, "full": full}
	if role, ok := roles[os.Getenv(roleKey)]; ok {
		if err := role(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			syscall.Exit(1)
		}
		syscall.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// play is the test binary in a role.
func play(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], args...)
	c.Env = append(os.Environ(), roleKey+"="+role)
	c.Stderr = os.Stderr
	return c
}

// write appends numbered lines to a log, each in one write, as a process does
// that flushes its output line by line.
func write(args []string) error {
	path, name := args[0], args[1]
	lines, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	defer f.Close()
	for n := range lines {
		if _, err := fmt.Fprintf(f, "%s %d\n", name, n); err != nil {
			return err
		}
	}
	return nil
}

// rotate does so many steps of a rotation and is killed then.
func rotate(args []string) error {
	s := New(Config{Directory: filepath.Dir(args[0]), Logger: hclog.NewNullLogger()})
	steps, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	l := s.get(args[0])
	if err := l.refresh(); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	r := rotation{log: l, file: f, generation: generation{l.start(), l.start() + 64<<10}, keep: 100}
	for _, step := range r.steps()[:steps] {
		if err := step(); err != nil {
			return err
		}
	}
	return unix.Kill(os.Getpid(), unix.SIGKILL)
}

// full has a log rotated on a disk that is full. It runs in a mount namespace of
// its own.
func full(args []string) error {
	if err := unix.Mount("tmpfs", args[0], "tmpfs", 0, "size=4m"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	s := New(Config{Directory: args[0], Logger: hclog.NewNullLogger()})
	l := s.get(filepath.Join(args[0], "a.log"))
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	ballast := filepath.Join(args[0], "ballast")
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); err != nil {
		return err
	}
	if s := New(Config{Directory: args[0], Logger: hclog.NewNullLogger()}); !s.rotates {
		return fmt.Errorf("that the disk is full now is taken for what it can not do: %q", s.Warnings)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	line := strings.Repeat("x", 1023) + "\n"
	w := bufio.NewWriterSize(f, len(line))
	for range 5 {
		for err == nil { // until the disk is full
			_, err = w.WriteString(line)
		}
		before := l.end()
		if _, err := l.keep(Limit{MaxSize: 1 << 20, Keep: 2}); err != nil {
			return fmt.Errorf("on a full disk: %w", err)
		}
		if l.end() == before {
			return fmt.Errorf("nothing was written")
		}
		err = nil
		w.Reset(f)
	}
	if _, err := fmt.Fprintln(f, "the last line"); err != nil {
		return fmt.Errorf("there is no room again: %w", err)
	}
	return nil
}
