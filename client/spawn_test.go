//go:build !windows

package client

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadSpawn(t *testing.T) {
	const record = `{"instancename":"Echo","modulename":"echo","propertyhash":{"loud":true},"tcpport":null,"httpport":16000}`
	for _, test := range []struct {
		name string
		env  map[string]string
		want Spawn
		err  string
	}{
		{name: "nothing"},
		{
			"as an agent starts it",
			map[string]string{"MACHINEAGENT_INSTANCE": "Echo", "ALLEX_SPAWN": record, "ALLEX_RUNTIMEDIRECTORY": "/srv",
				"HTTP_PORT": "16000", "PORT": "16000", "WS_PORT": "17000"},
			Spawn{Instance: "Echo", Module: "echo", PropertyHash: json.RawMessage(`{"loud":true}`),
				Ports: Ports{HTTP: 16000, WS: 17000}, RuntimeDirectory: "/srv", Record: json.RawMessage(record)}, "",
		},
		{"by hand", map[string]string{"PORT": "8080"}, Spawn{Ports: Ports{HTTP: 8080}}, ""},
		{"two HTTP ports", map[string]string{"PORT": "8080", "HTTP_PORT": "8081"}, Spawn{Ports: Ports{HTTP: 8081}}, ""},
		{"no port", map[string]string{"TCP_PORT": "70000"}, Spawn{}, `TCP_PORT is "70000"`},
		{"no record", map[string]string{"ALLEX_SPAWN": "{"}, Spawn{}, "ALLEX_SPAWN"},
	} {
		t.Run(test.name, func(t *testing.T) {
			asChild(t, "")
			t.Setenv("ALLEX_RUNTIMEDIRECTORY", "")
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			got, err := ReadSpawn()
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("%v, want %q", err, test.err)
			}
		})
	}
}

func TestProperties(t *testing.T) {
	var p struct{ Loud bool }
	if err := (Spawn{}).Properties(&p); err != nil || p.Loud {
		t.Errorf("without any: %v, %v", p, err)
	}
	if err := (Spawn{PropertyHash: json.RawMessage(`{"loud":true}`)}).Properties(&p); err != nil || !p.Loud {
		t.Errorf("%v, %v", p, err)
	}
	err := Spawn{Instance: "Echo", PropertyHash: json.RawMessage(`{"loud":"very"}`)}.Properties(&p)
	if err == nil || !strings.Contains(err.Error(), `"Echo"`) {
		t.Errorf("of another type: %v", err)
	}
}
