//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/allexgo/machine-agent/e2e/lab"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// What ends too soon again and again is told as a crash loop: by the API, by
// agentctl, on the LAN manager's page, and by the next agent; until it is healthy
// for a while.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.lab.Pages = true
	manager := s.lan(needs(1, "quitter")...)
	mended := filepath.Join(s.lab.Dir, "mended")
	module := s.hello()
	module["modulename"] = "quitter"
	module["command"] = []string{"sh", "-c", `test -e "$MENDED" || exit 3; exec "$HELLO"`}
	module["environment"] = map[string]string{"MENDED": mended, "HELLO": filepath.Join(s.lab.Bin, "hello")}
	module["backoff"] = map[string]string{"initial": "1ms", "max": "50ms", "reset": "1ms"}
	a := s.agent("machine", lab.AgentFiles{LANManager: manager.Address, Modules: map[string]lab.Module{"quitter": module}})

	looping := func(least int32) (p *pb.Process) { // waits for the verdict
		s.until(func() string {
			answer, err := a.Client.Processes.GetProcess(s.ctx, &pb.GetProcessRequest{Instance: "quitter-0"})
			if p = answer.GetProcess(); err != nil || !p.GetCrashLoop() || p.GetFailures() < least {
				return fmt.Sprintf("a crash loop of %d failures: %v, %v", least, p, err)
			}
			return ""
		})
		return p
	}
	first := looping(7)
	if first.GetFailingSince() == nil {
		t.Errorf("since when is not told: %v", first)
	}
	out, err := a.Ctl(s.ctx, "ps")
	s.must(err)
	if !strings.Contains(out, "CRASH_LOOP") {
		t.Errorf("agentctl ps does not say so:\n%s", out)
	}
	s.until(func() string {
		text := s.get("http://" + manager.Page + "/api/needs")
		for _, part := range []string{"machine started it, but", "crash loop", `{\"code\":3}`} {
			if !strings.Contains(text, part) {
				return fmt.Sprintf("%q on the LAN manager's page: %s", part, text)
			}
		}
		return ""
	})
	if text := s.get("http://" + manager.Page + "/api/events"); strings.Count(text, "service fails") != 1 {
		t.Errorf("the LAN manager's journal: %s", text)
	}

	s.must(a.Leave())
	a = s.again("machine")
	again := looping(7)
	if !again.GetFailingSince().AsTime().Equal(first.GetFailingSince().AsTime()) {
		t.Errorf("it fails since %v, for the agent before since %v", again.GetFailingSince(), first.GetFailingSince())
	}

	s.must(lab.WriteJSON(mended, true))
	s.until(func() string {
		if p := s.process(a, "quitter-0"); p.GetState() != pb.ProcessState_PROCESS_STATE_READY || p.GetFailures() != 0 || p.GetCrashLoop() {
			return "an end of the loop: " + p.String()
		}
		return ""
	})
}

// get reads what is at a URL.
func (s *stage) get(url string) string {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.ctx, http.MethodGet, url, nil)
	s.must(err)
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	s.must(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	s.must(err)
	return string(text)
}
