package jsonfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestWriteReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f.json")
	for _, sync := range []bool{false, true} {
		for _, text := range []string{"a long first content", "short", ""} {
			if err := Write(path, []byte(text), sync); err != nil {
				t.Fatal(err)
			}
			if got := read(t, path); got != text {
				t.Errorf("got %q, want %q", got, text)
			}
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
	wantOnly(t, dir, "f.json")
}

func TestCreateOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f.json")
	if err := Create(path, []byte("first"), true); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, []byte("second"), true); !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v, want os.ErrExist", err)
	}
	if got := read(t, path); got != "first" {
		t.Errorf("got %q", got)
	}
	wantOnly(t, dir, "f.json")
}

// A failed write leaves the old content and nothing else.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "busy"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "plain"), []byte("x"), false); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, want string }{
		{filepath.Join(dir, "busy"), "file exists"},
		{filepath.Join(dir, "plain", "f.json"), "not a directory"},
		{filepath.Join(dir, "none", "f.json"), "no such file or directory"},
		{"/proc/f.json", "no such file or directory"},
	} {
		err := Write(tt.path, []byte("y"), true)
		if want := "can not write " + tt.path + ": " + tt.want; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	wantOnly(t, dir, "busy", "plain")
}

// Readers see one content or the other, whole, while writers work.
func TestWriteConcurrently(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f.json")
	if err := Write(path, nil, false); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	defer writers.Wait()
	for w := range 4 {
		writers.Go(func() {
			for range 50 {
				if err := Write(path, []byte(strings.Repeat(fmt.Sprint(w), 5000)), false); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 200 {
		if got := read(t, path); got != "" && got != strings.Repeat(got[:1], 5000) {
			t.Fatal("a torn file was read")
		}
	}
	writers.Wait()
	wantOnly(t, dir, "f.json")
}

func TestIsTemporary(t *testing.T) {
	for name, want := range map[string]bool{".f.json.123.tmp": true, "f.json": false, ".f.json": false, "f.tmp": false} {
		if IsTemporary(name) != want {
			t.Errorf("%s: want %t", name, want)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func wantOnly(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the directory has %v, want %v", got, want)
	}
}
