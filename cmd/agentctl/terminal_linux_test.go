package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
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

// writing is an agent with a log that came in these pieces.
type writing struct {
	fake
	pieces []string
}

func (f *writing) TailLogs(_ *pb.TailLogsRequest, stream grpc.ServerStreamingServer[pb.TailLogsResponse]) error {
	for _, piece := range f.pieces {
		if err := stream.Send(&pb.TailLogsResponse{Data: []byte(piece)}); err != nil {
			return err
		}
	}
	return nil
}

// A terminal does not obey what a child has written, unless it is told to; and who
// reads a log from a pipe has every byte.
func TestLogsOnTerminal(t *testing.T) {
	written := "\x1b]0;title\x07\x1b[31mred\x1b[m\tand \x07 bell\r\n\x1b[2Jünï\xff\u202e\n10%\r20% \x1b[2Jmore"
	harmless := "red    and \\a bell\nünï\\u202e\n10%\\r20% more"
	for at := range len(written) { // wherever it is cut
		address := serve(t, &writing{pieces: []string{written[:at], written[at:]}})
		if code, screen := onTerminal(t, 20, "logs", "echo", "--address", address); code != exitDone || screen != harmless {
			t.Fatalf("cut at %d: exit code %d, %q, want %q", at, code, screen, harmless)
		}
	}
	address := serve(t, &writing{pieces: []string{written}})
	if code, screen := onTerminal(t, 20, "logs", "echo", "--raw", "--address", address); code != exitDone || screen != written {
		t.Errorf("raw: exit code %d, %q", code, screen)
	}
	if code, stdout, _ := agentctl(t, "logs", "echo", "--address", address); code != exitDone || stdout != written {
		t.Errorf("no terminal: exit code %d, %q", code, stdout)
	}
}

// On a terminal no line is longer than it is wide, and no reason is cut; elsewhere a row
// is one line, and whole.
func TestTablesOnTerminal(t *testing.T) {
	address := serve(t, &fake{})
	for _, args := range [][]string{{"needs"}, {"ps"}, {"ps", "--usage"}, {"ports"}, {"services"}, {"modules"}, {"events"}, {"top", "--once", "--interval", "100ms"}, {"watch"}, {"doctor"}} {
		for _, columns := range []int{40, 80, 120} {
			_, screen := onTerminal(t, columns, append(args, "--address", address)...)
			_, whole, _ := agentctl(t, append(args, "--address", address)...)
			lines := strings.Split(screen, "\n")
			if want := strings.Split(whole, "\n"); len(lines) < len(want) {
				t.Errorf("%q: %d rows of %d", args, len(lines), len(want))
			}
			for i, line := range lines {
				sentence := strings.HasPrefix(line, "PROBLEM") || strings.HasPrefix(line, "agentctl: ")
				if ansi.StringWidth(line) > columns && !sentence {
					t.Errorf("%q at %d columns: row %d is %q", args, columns, i, line)
				}
			}
		}
	}
	_, screen := onTerminal(t, 80, "needs", "--address", address)
	checkGolden(t, "needs-80", screen)
	_, screen = onTerminal(t, 80, "ps", "--address", address)
	checkGolden(t, "ps-80", screen)
}
