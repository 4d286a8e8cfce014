package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/allexgo/machine-agent/agent/config"
	"github.com/allexgo/machine-agent/lan/table"
)

// captured is the ALLEX_SPAWN of a child of the original, verbatim from
// lan/PROTOCOL.md section 12.2.
const captured = `{"instancename":"Time","modulename":"allex_timeservice","propertyhash":{},"strategies":{"ip":[{"ip":"127.0.0.1/32","role":"user"},{"ip":"127.0.0.0/8","role":"user"}]},"closed":null,"tcpport":15000,"tcpoptions":null,"httpport":16000,"httpoptions":null,"wsport":17000,"wsoptions":null,"pid":null,"debug":null,"debug_brk":null,"prof":null,"gate":null,"masterpid":5169}`

func TestSpawnRecord(t *testing.T) {
	n := table.Need{InstanceName: "Time", ModuleName: "allex_timeservice",
		Strategies: json.RawMessage(`{"ip":[{"ip":"127.0.0.1/32","role":"user"},{"ip":"127.0.0.0/8","role":"user"}]}`)}
	ports := table.Ports{TCP: 15000, HTTP: 16000, WS: 17000}
	ours := fmt.Sprintf(`"masterpid":%d}`, os.Getpid())
	want := strings.Replace(captured, `"masterpid":5169}`, ours, 1)
	if diff := cmp.Diff(want, spawnRecord(&n, ports)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// What is handed on.
	n.Rest = map[string]json.RawMessage{"gate": json.RawMessage(`{"ws":{}}`), "tcpoptions": json.RawMessage(`{"t":1}`), "httpoptions": json.RawMessage(`{"h":1}`),
		"wsoptions": json.RawMessage(`{"w":1}`), "debug": json.RawMessage(`1`), "debug_brk": json.RawMessage(`2`), "prof": json.RawMessage(`true`)}
	handed := strings.NewReplacer(`"gate":null`, `"gate":{"ws":{}}`, `"tcpoptions":null`, `"tcpoptions":{"t":1}`, `"httpoptions":null`, `"httpoptions":{"h":1}`,
		`"wsoptions":null`, `"wsoptions":{"w":1}`, `"debug":null`, `"debug":1`, `"debug_brk":null`, `"debug_brk":2`, `"prof":null`, `"prof":true`).Replace(want)
	if diff := cmp.Diff(handed, spawnRecord(&n, ports)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	n.Rest = nil

	// What differs from need to need.
	n.ModuleName, n.PropertyHash = "dotnet:Clock", json.RawMessage(`{"a":[1,null]}`)
	want = strings.NewReplacer(`"allex_timeservice"`, `"Clock"`, `"propertyhash":{}`, `"propertyhash":{"a":[1,null]}`,
		`"tcpport":15000`, `"tcpport":null`, `"wsport":17000`, `"wsport":null`).Replace(want)
	if diff := cmp.Diff(want, spawnRecord(&n, table.Ports{HTTP: 16000})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// environment as a map; a name twice is an error, for programs differ in which
// of the two they see.
func environmentOf(t *testing.T, env []string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, e := range env {
		name, value, ok := strings.Cut(e, "=")
		if _, twice := all[name]; !ok || twice {
			t.Errorf("%q is odd, or there twice", e)
		}
		all[name] = value
	}
	return all
}

// TestEnvironment: what a child finds, and nothing else of the agent's own.
func TestEnvironment(t *testing.T) {
	m, ok := modules(t, `{"modulename": "probe", "command": [SELF], "environment": {"OWN": "on ${httpport}", "TZ": "of the module"}}`).Find("probe")
	if !ok {
		t.Fatal("the module is not there")
	}
	for _, name := range []string{"PATH", "LANG", "LC_TIME", "TZ", "TMPDIR"} {
		t.Setenv(name, "of the agent "+name)
	}
	for _, name := range []string{"SECRET_TOKEN", "LD_PRELOAD_NOT", "MACHINEAGENT_ADDRESS", "PORT", "ALLEX_SPAWN", "LCX", "HOME", "USER", "SHELL", "NOTIFY_SOCKET", "LISTEN_FDS"} {
		t.Setenv(name, "secret")
	}
	a := &Agent{Config: Config{Config: config.Config{RuntimeDirectory: "/srv/run", Socket: "/tmp/allexmachinemanager"}}}
	n := &table.Need{InstanceName: "Probe one", ModuleName: "probe", PropertyHash: json.RawMessage(`{"password":"x"}`)}
	ports := table.Ports{TCP: 15000, HTTP: 16000, WS: 17000}
	got := environmentOf(t, a.environment(m, n, ports))

	for name, value := range got {
		if value == "secret" {
			t.Errorf("%s of the agent's own environment is handed on", name)
		}
		if strings.HasPrefix(name, "LC_") && name != "LC_TIME" {
			delete(got, name) // of this machine
		}
	}
	for _, name := range []string{"HOME", "USER", "LOGNAME"} { // of this machine, too
		if got[name] == "" {
			t.Errorf("there is no %s", name)
		}
		delete(got, name)
	}
	want := map[string]string{
		"PATH": "of the agent PATH", "LANG": "of the agent LANG", "LC_TIME": "of the agent LC_TIME",
		"TZ": "of the module", "TMPDIR": "of the agent TMPDIR", "SHELL": "/bin/sh",
		"ALLEX_SPAWN": spawnRecord(n, ports), "ALLEX_RUNTIMEDIRECTORY": "/srv/run",
		"MACHINEAGENT_ADDRESS": "unix:/tmp/allexmachinemanager", "MACHINEAGENT_INSTANCE": "Probe one",
		"TCP_PORT": "15000", "HTTP_PORT": "16000", "WS_PORT": "17000", "PORT": "16000",
		"OWN": "on 16000",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if !bytes.Contains([]byte(got["ALLEX_SPAWN"]), n.PropertyHash) {
		t.Errorf("ALLEX_SPAWN %s lacks the property hash", got["ALLEX_SPAWN"])
	}
}

// TestEnvironmentOfPorts: only ports that are there are named.
func TestEnvironmentOfPorts(t *testing.T) {
	m, _ := modules(t, `{"modulename": "probe", "command": [SELF]}`).Find("probe")
	a := &Agent{}
	for _, name := range []string{"TCP_PORT", "HTTP_PORT", "WS_PORT", "PORT"} {
		for _, test := range []struct {
			ports table.Ports
			want  string
		}{
			{table.Ports{TCP: 1}, map[string]string{"TCP_PORT": "1"}[name]},
			{table.Ports{HTTP: 2}, map[string]string{"HTTP_PORT": "2", "PORT": "2"}[name]},
			{table.Ports{WS: 3}, map[string]string{"WS_PORT": "3"}[name]},
		} {
			got, there := environmentOf(t, a.environment(m, &table.Need{}, test.ports))[name]
			if got != test.want || there != (test.want != "") {
				t.Errorf("%v: %s=%q, want %q", test.ports, name, got, test.want)
			}
		}
	}
}
