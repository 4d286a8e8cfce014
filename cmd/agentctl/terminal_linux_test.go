package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onTerminal runs one command line at the moment on a terminal of so many columns,
// and tells what is written there; errors go there, too.
func onTerminal(t *testing.T, columns int, args ...string) (code int, screen string) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("this needs /dev/ptmx:", err)
	}
	defer keyboard.Close()
	fd := int(keyboard.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(columns), Row: 24}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	stdin := os.Stdin
	os.Stdin = tty
	defer func() { os.Stdin = stdin }()
	written := make(chan string)
	go func() {
		text, _ := io.ReadAll(keyboard) // it ends with an error when tty is closed
		written <- string(text)
	}()
	code = run(t.Context(), moment, args, tty, tty)
	tty.Close()
	return code, strings.ReplaceAll(<-written, "\r\n", "\n")
}

// A terminal that can not be drawn on is not.
func TestTopOnDumbTerminal(t *testing.T) {
	t.Setenv("TERM", "dumb")
	address := serve(t, &fake{})
	code, screen := onTerminal(t, 80, "top", "--address", address)
	if want := "agentctl: a terminal of type dumb (TERM) can not show a live table\n" +
		"  what to do: set TERM to what the terminal is, or have one table with --once\n"; code != exitUsage || screen != want {
		t.Errorf("exit code %d, %q, want %q", code, screen, want)
	}
	code, screen = onTerminal(t, 200, "top", "--once", "--interval", "100ms", "--address", address)
	if code != exitDone || !strings.HasPrefix(screen, "INSTANCE ") || strings.Contains(screen, "\x1b") {
		t.Errorf("exit code %d, %q", code, screen)
	}
}
