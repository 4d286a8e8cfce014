package transcript

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReadCountsAllUnits(t *testing.T) {
	type count struct{ Connections, FromClient, FromServer int }
	want := map[string]count{
		"client-bid-cycle.log":  {2, 29, 91},
		"client-edge-cases.log": {12, 109, 286},
		"master-ws.log":         {2, 115, 258},
		"master-signalr.log":    {1, 29, 88},
	}
	for name := range want {
		lines, err := Read(filepath.Join("../testdata/transcripts", name))
		if err != nil {
			t.Fatal(err)
		}
		var got count
		for _, line := range lines {
			got.Connections = max(got.Connections, line.Connection)
			switch line.Kind {
			case FromClient:
				got.FromClient++
			case FromServer:
				got.FromServer++
			}
		}
		if diff := cmp.Diff(want[name], got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestFrames(t *testing.T) {
	for name, want := range map[string][]Frame{
		"master-signalr.log": {{4, FromClient, `{"protocol":"json","version":1}` + "\x1e"}, {6, FromServer, "{}\x1e"}, {7, FromClient, `{"type":6}` + "\x1e"}},
		"master-ws.log":      {{2, FromClient, `["02fc0000000151691083238ee69f4bb000072",[null,{"ip":{"name":"any_name","role":"user"}}]]`}},
	} {
		frames, err := Frames(filepath.Join("../testdata/transcripts", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, frames[:len(want)]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		joined := 0
		for _, frame := range frames {
			joined += strings.Count(frame.Text, "\x00")
		}
		if name == "master-ws.log" && joined != 105 {
			t.Errorf("%s: %d units came with another", name, joined)
		}
	}
}

// Calls of a connection that stays open while another comes and goes keep
// theirs.
func TestReadTellsConnectionsApart(t *testing.T) {
	lines, err := Read("../testdata/transcripts/client-edge-cases.log")
	if err != nil {
		t.Fatal(err)
	}
	connections := make(map[string]int)
	for _, line := range lines {
		if line.ID == "" {
			continue
		}
		if c, ok := connections[line.ID]; ok && c != line.Connection {
			t.Errorf("line %d: %s is on connection %d, was on %d", line.Number, line.ID, line.Connection, c)
		}
		connections[line.ID] = line.Connection
	}
	if connections["q12"] != connections["q103"] || connections["q90"] == connections["q89"] {
		t.Errorf("q12 %d, q89 %d, q90 %d, q103 %d", connections["q12"], connections["q89"], connections["q90"], connections["q103"])
	}
}

func TestReadFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad.log")
	if err := os.WriteFile(path, []byte("1.0 #1 C>S {<RS>\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil {
		t.Error("read what is no SignalR")
	}
	if _, err := Read(path + "x"); err == nil {
		t.Error("read no file")
	}
	if _, err := Frames(path + "x"); err == nil {
		t.Error("read the frames of no file")
	}
}
