package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Who only looks is told of what may still run, and touches nothing.
func TestRecorded(t *testing.T) {
	if all, err := Recorded(t.TempDir()); err != nil || len(all) != 0 {
		t.Errorf("of nothing: %v, %v", all, err)
	}
	s := openStore(t, t.TempDir())
	runs, ended, before := golden()[1], golden()[1], golden()[0]
	runs.Identity.BootID, ended.Identity.BootID = s.boot, s.boot
	ended.Instance, ended.Phase = "Ended", Ended
	for _, r := range []Record{runs, ended, before} {
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	damaged := filepath.Join(s.dir, "run", "damaged.json")
	if err := os.WriteFile(damaged, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := Recorded(s.dir); err != nil || len(all) != 1 || all[0].Instance != runs.Instance {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := os.Stat(damaged); err != nil {
		t.Error(err)
	}
}

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
