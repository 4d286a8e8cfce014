package handover

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memfd is one with that text, sealed or not.
func memfd(t *testing.T, text string, seals int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return fd
}

// What is not surely from an agentd of this format is not acted upon.
func TestTakeRefuses(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, test := range map[string]struct{ value, says string }{
		"no number":      {"x", "invalid syntax"},
		"closed":         {"9999", "no sealed memfd"},
		"another file":   {strconv.Itoa(int(file.Fd())), "no sealed memfd"},
		"not sealed":     {strconv.Itoa(memfd(t, `{"version":1}`, 0)), "no sealed memfd"},
		"not JSON":       {strconv.Itoa(memfd(t, "{", seals)), "JSON"},
		"another format": {strconv.Itoa(memfd(t, `{"version":2}`, seals)), "version 2"},
	} {
		t.Setenv(variable, test.value)
		if h, err := Take(); h != nil || err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v, %v", name, h, err)
		}
	}
	if h, err := Take(); h != nil || err != nil {
		t.Errorf("without anything: got %v, %v", h, err)
	}
}

// What was added comes out again, as often as it is asked for, until Ready.
func TestThere(t *testing.T) {
	h, err := New(Note{ID: "x", From: "1.0"})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Add("it", file); err != nil {
		t.Fatal(err)
	}
	file.Close()
	fd, err := h.seal()
	if err != nil {
		t.Fatal(err)
	}
	n, err := read(strconv.Itoa(fd))
	if err != nil || n.ID != "x" || n.From != "1.0" || !slices.Equal(n.Args, os.Args) || n.Files["it"] == 0 {
		t.Errorf("got %+v, %v", n, err)
	}
	for range 2 {
		f := h.File("it")
		text := make([]byte, 7)
		if _, err := f.ReadAt(text, 0); err != nil || string(text) != "content" {
			t.Errorf("got %q, %v", text, err)
		}
		f.Close()
	}
	h.Ready()
	h.Ready()
	if f := h.File("it"); f != nil || len(h.Names()) != 0 {
		t.Errorf("there is still %v of %v", f, h.Names())
	}
	h.Back(errors.New("nobody to go back to")) // or this test binary would be executed anew
}

func TestNoteIsStable(t *testing.T) {
	text, err := json.Marshal(note{Version: 1, ID: "i", From: "f", Within: 1, Problem: "p", Args: []string{"a"}, Files: map[string]int{"x": 3}})
	const want = `{"version":1,"id":"i","from":"f","within":1,"problem":"p","args":["a"],"files":{"x":3}}`
	if err != nil || string(text) != want {
		t.Errorf("a program of before would not read %s: change Version", text)
	}
}

// TestAskedToEnd: whoever has been asked to end does not go back, which would forget
// it. Else this program would become the other one here.
func TestAskedToEnd(t *testing.T) {
	h, err := New(Note{From: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := unix.Open("/bin/false", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(h.files[program])
	h.files[program], h.args = other, []string{"false"}
	h.timer = time.NewTimer(time.Hour)
	h.Unless(func() bool { return true })
	h.Back(errors.New("not ready in time"))
	h.Ready()
}
