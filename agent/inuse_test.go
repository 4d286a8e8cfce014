package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is looked at is the end of what the process itself has written.
func TestSaysInUse(t *testing.T) {
	const before = "Error: listen EADDRINUSE: address already in use :::16000\n"
	for _, test := range []struct {
		text string
		want bool
	}{
		{"", false},
		{"listening\n", false},
		{"OSError: [Errno 98] Address already in use\n", true},
		{"bind: EADDRINUSE\n", true},
		{"ActiveRecord: Address in use\n" + strings.Repeat("x", inUseTail-40), true},
		{"address already in use\n" + strings.Repeat("x", inUseTail), false},
	} {
		log := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(log, []byte(before+test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := saysInUse(log, int64(len(before))); got != test.want {
			t.Errorf("%.40q: %v", test.text, got)
		}
	}
	if saysInUse(filepath.Join(t.TempDir(), "none"), 0) {
		t.Error("a log that is not there says something")
	}
}
