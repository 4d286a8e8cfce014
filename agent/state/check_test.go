package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Only what a newer agent has written speaks against this one; nothing is touched.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	if err := Check(filepath.Join(dir, "none")); err != nil {
		t.Error(err)
	}
	newer, err := seal(map[string]any{"version": version + 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"run/damaged.json": "{", "run/empty.json": "", "run/newer.json": string(newer), "kept.json": string(newer)}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err = Check(dir)
	for name := range files {
		if told, want := err != nil && strings.Contains(err.Error(), filepath.Join(dir, name)), strings.Contains(files[name], "version"); told != want {
			t.Errorf("%s: told %v, want %v: %v", name, told, want, err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != files[name] {
			t.Errorf("%s was touched: %q, %v", name, text, err)
		}
	}
}
