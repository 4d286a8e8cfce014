package probe

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func logFile(t *testing.T, text string) (name string, write func(string)) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "log")
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	write = func(text string) {
		if _, err := file.WriteString(text); err != nil {
			t.Error(err)
		}
	}
	write(text)
	return name, write
}

var listening = regexp.MustCompile(`^listening on \d+$`)

func TestLog(t *testing.T) {
	const before = "listening on 1\n"
	for what, c := range map[string]struct {
		lines []string
		ready bool
		want  string
	}{
		"the line":            {[]string{"hello\n", "listening on 2\n", "bye\n"}, true, ""},
		"in pieces":           {[]string{"hello\nlisten", "ing on", " 2", "\n"}, true, ""},
		"not complete":        {[]string{"hello\n", "listening on 2"}, false, `last line is "hello"`},
		"not of this process": {nil, false, "it has logged nothing"},
		"another line":        {[]string{"not listening on 2\n"}, false, `last line is "not listening on 2"`},
		"behind a long line":  {[]string{strings.Repeat("x", 3*maxLine), "\nlistening on 2\n"}, true, ""},
		"no text":             {[]string{"\x00\xff\n", "listening on 2\n"}, true, ""},
	} {
		t.Run(what, func(t *testing.T) {
			name, write := logFile(t, before)
			for _, text := range c.lines {
				write(text)
			}
			q := Log(name, int64(len(before)), listening)
			if c.ready {
				if err := q.Until(t.Context(), untold); err != nil {
					t.Error(err)
				}
				return
			}
			if err := refusedBy(t, q); !errors.Is(err, errOver) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q and the cause", err, c.want)
			}
		})
	}
}

// The line comes while it is waited for, in a file that was begun anew.
func TestLogLater(t *testing.T) {
	name, write := logFile(t, "a line of the process before\n")
	l := lines{at: 29}
	var err error
	if l.file, err = os.Open(name); err != nil {
		t.Fatal(err)
	}
	defer l.file.Close()
	if err := l.find(listening); !errors.Is(err, errNoMatch) {
		t.Errorf("nothing is there: %v", err)
	}
	write("listening")
	if err := l.find(listening); !errors.Is(err, errNoMatch) {
		t.Errorf("half a line is there: %v", err)
	}
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
	write("listening on 3\n")
	if err := l.find(listening); err != nil {
		t.Error(err)
	}
}

func TestLogUnreadable(t *testing.T) {
	if err := Log(filepath.Join(t.TempDir(), "none"), 0, listening).Once(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
