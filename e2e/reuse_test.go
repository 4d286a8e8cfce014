//go:build linux

package e2e

import (
	"strings"
	"testing"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// A program that sets no SO_REUSEADDR can not have a port that is reserved for it.
// That is told wherever somebody looks, with the port mode that helps.
func TestNoReuse(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	const server = `import os, socket
s = socket.socket()
s.bind(("", int(os.environ["HTTP_PORT"])))
s.listen()
while True:
    s.accept()`
	modules, wanted := map[string]lab.Module{}, []lab.Need(nil)
	for _, mode := range []string{"reserved", "released"} {
		modules[mode] = lab.Module{"modulename": mode, "command": []string{"python3", "-c", server}, "ports": []string{"http"}, "portmode": mode,
			"backoff": map[string]string{"initial": "1m", "max": "1m"}}
		wanted = append(wanted, needs(1, mode)...)
	}
	manager := s.lan(wanted...)
	o := s.observe(manager)
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: modules})
	const hint = `give its module "portmode": "released"`
	if d := s.decided(a, "reserved-0", pb.Decision_DECISION_BACKOFF); !strings.Contains(d.GetDetail(), hint) {
		t.Errorf("it waits because %q, want %q", d.GetDetail(), hint)
	}
	s.finds("machine", "WARN", "serving", "reserved-0", hint)
	s.served(o, 1) // the other one
}
