package process

import (
	"strings"
	"syscall"
	"testing"
)

func TestParseSignal(t *testing.T) {
	for name, want := range map[string]syscall.Signal{
		"SIGTERM": syscall.SIGTERM, "SIGKILL": syscall.SIGKILL, "SIGHUP": syscall.SIGHUP, "SIGINT": syscall.SIGINT,
	} {
		if got, err := ParseSignal(name); got != want || err != nil {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	for name, cure := range map[string]string{
		"": "SIGTERM", "9": "SIGTERM", "SIGNONE": "SIGTERM", "term": "SIGTERM", "Hup": "SIGHUP", "sigint": "SIGINT",
	} {
		_, err := ParseSignal(name)
		if err == nil || !strings.HasSuffix(err.Error(), "write it like "+cure) {
			t.Errorf("%q: got %v, want it to propose %s", name, err, cure)
		}
	}
}

func TestExitString(t *testing.T) {
	for want, exit := range map[string]Exit{
		"exit code 0": {}, "exit code 3": {Code: 3}, "signal SIGKILL": {Signal: "SIGKILL"}, "exit status unknown": {Unknown: true},
	} {
		if got := exit.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
