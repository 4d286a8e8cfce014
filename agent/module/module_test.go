package module

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/internal/jsonfile"
	"github.com/allexgo/machine-agent/lan/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// catalogue writes modules/<name>.json files and an executable ./echo beside
// the catalogue, and returns the directory that holds both.
func catalogue(t *testing.T, files map[string]string) (home string) {
	t.Helper()
	home = t.TempDir()
	write(t, filepath.Join(home, "echo"), "#!/bin/sh\n", 0o755)
	for name, text := range files {
		write(t, filepath.Join(home, "modules", name), text, 0o644)
	}
	return home
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, files map[string]string) (*Catalogue, string) {
	t.Helper()
	home := catalogue(t, files)
	c, err := Load(filepath.Join(home, "modules"))
	if err != nil {
		t.Fatal(err)
	}
	return c, home
}

// exceptSum leaves out what no reader of a test could check.
var exceptSum = cmpopts.IgnoreFields(Module{}, "Sum")

func TestDefaults(t *testing.T) {
	c, home := load(t, map[string]string{"x.json": `{"modulename": "echo", "command": ["./echo"]}`})
	got, ok := c.Find("echo")
	want := &Module{
		Name: "echo", File: filepath.Join(home, "modules", "x.json"), Command: []string{filepath.Join(home, "echo")},
		Ready: Ready{Kind: ReadyPort}, Stop: Stop{Signal: "SIGTERM", Timeout: 10 * time.Second},
		Ports: []port.Protocol{port.TCP, port.HTTP, port.WS}, PortMode: port.Reserved, StartTimeout: 30 * time.Second,
		Backoff: Backoff{Initial: 100 * time.Millisecond, Max: time.Minute, Reset: 10 * time.Second},
		Log:     Log{MaxSize: 16 << 20, Keep: 4},
	}
	if diff := cmp.Diff(want, got, exceptSum); !ok || diff != "" {
		t.Errorf("found %t: %s", ok, diff)
	}
}

func TestEveryKey(t *testing.T) {
	c, home := load(t, map[string]string{
		"sub/echo.txt": "",
		"x.json": `{
			"modulename": "echo", "command": ["../echo", "--http", "${httpport}"], "environment": {"LOG": "info", "NAME": "${instancename}"},
			"directory": "modules", "ready": {"kind": "register"}, "stop": {"grace": "3s", "signal": "SIGINT", "timeout": "1s"},
			"ports": ["ws", "http"], "portmode": "released", "starttimeout": "1m",
			"backoff": {"initial": "0s", "max": "1s", "reset": "2s"}, "log": {"maxsize": "1MiB", "keep": 0}, "outside": {"users": ["bob"]}, "operator": true
		}`})
	got, _ := c.Find("echo")
	want := &Module{
		Name: "echo", File: filepath.Join(home, "modules", "x.json"),
		Command:     []string{filepath.Join(home, "echo"), "--http", "${httpport}"},
		Environment: map[string]string{"LOG": "info", "NAME": "${instancename}"},
		Directory:   filepath.Join(home, "modules"),
		Ready:       Ready{Kind: ReadyRegister}, Stop: Stop{Grace: 3 * time.Second, Signal: "SIGINT", Timeout: time.Second},
		Ports: []port.Protocol{port.WS, port.HTTP}, PortMode: port.Released, StartTimeout: time.Minute,
		Backoff: Backoff{Max: time.Second, Reset: 2 * time.Second}, Log: Log{MaxSize: 1 << 20}, Outside: []string{"bob"}, Operator: true,
	}
	if diff := cmp.Diff(want, got, exceptSum); diff != "" {
		t.Error(diff)
	}
}

func TestFind(t *testing.T) {
	c, _ := load(t, map[string]string{
		"a.json":      `{"modulename": "allex_timeservice", "command": ["./echo"]}`,
		"b.json":      `{"modulename": "dotnet:*", "command": ["./echo"]}`,
		"c.json":      `{"modulename": "dotnet:Foo*", "command": ["./echo"]}`,
		"d.json":      `{"modulename": "dotnet:Foo.Bar", "command": ["./echo"]}`,
		"README.md":   "not a module",
		".x.json":     "hidden",
		"e.json.orig": "not a module",
	})
	for name, want := range map[string]string{
		"allex_timeservice":                  "allex_timeservice",
		"allex_timeservic":                   "",
		"dotnet:Foo.Bar":                     "dotnet:Foo.Bar",
		"dotnet:Foo_Bar":                     "dotnet:Foo*",
		"dotnet:FooBar":                      "dotnet:Foo*",
		"dotnet:Foo":                         "dotnet:*",
		"dotnet:Foo.Baz":                     "dotnet:*", // the rest of "Foo*" would begin with a dot
		"dotnet:A":                           "dotnet:*",
		"dotnet:":                            "",
		"dotnet:*":                           "",
		"dotnet:Foo*":                        "",
		"dotnet:-x":                          "",
		"dotnet:../../bin/sh":                "",
		"dotnet:a/b":                         "",
		"dotnet:a b":                         "",
		"dotnet:ä":                           "",
		"dotnet:a\x00":                       "",
		"":                                   "",
		"dotnet:" + strings.Repeat("a", 248): "dotnet:*",
		"dotnet:" + strings.Repeat("a", 249): "",
	} {
		m, ok := c.Find(name)
		got := ""
		if ok {
			got = m.Name
		}
		if got != want {
			t.Errorf("%q: found %q, want %q", name, got, want)
		}
	}
	if got, want := c.Names(), []string{"allex_timeservice", "dotnet:*", "dotnet:Foo*", "dotnet:Foo.Bar"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
}

func TestNoDirectoryIsAnEmptyCatalogue(t *testing.T) {
	c, err := Load(filepath.Join(t.TempDir(), "none"))
	if err != nil || len(c.Names()) != 0 {
		t.Errorf("got %v, %v", c, err)
	}
	if _, ok := c.Find("x"); ok {
		t.Error("found a module")
	}
}

func TestArgvAndEnv(t *testing.T) {
	c, home := load(t, map[string]string{
		"x.json": `{"modulename": "dotnet:*", "environment": {"B": "${modulename}", "A": "$5 } ${propertyhash}"},
			"command": ["./echo", "${instancename}", "${modulename}/${module}", "t${tcpport},h${httpport},w${wsport}", "$ {} plain"]}`,
		"sh.json": `{"modulename": "shell", "ports": ["http"], "environment": {"PROPERTYHASH": "${propertyhash}"},
			"command": ["sh", "-c", "exec \"$0\" \"$PROPERTYHASH\" $HTTP_PORT", "./server", "${httpport}"]}`,
	})
	m, _ := c.Find("dotnet:Foo")
	v := Values{InstanceName: "../${propertyhash}", ModuleName: "dotnet:Foo", Ports: table.Ports{TCP: 1, HTTP: 2, WS: 3},
		PropertyHash: json.RawMessage(`{"a": "${tcpport}"}`)}
	want := []string{filepath.Join(home, "echo"), "../${propertyhash}", "dotnet:Foo/Foo", "t1,h2,w3", "$ {} plain"}
	for range 2 { // the module does not change
		if diff := cmp.Diff(want, m.Argv(v)); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff([]string{`A=$5 } {"a": "${tcpport}"}`, "B=dotnet:Foo"}, m.Env(v)); diff != "" {
		t.Error(diff)
	}
	sh, _ := c.Find("shell")
	argv := sh.Argv(Values{ModuleName: "shell", Ports: table.Ports{HTTP: 80}})
	if want, _ := exec.LookPath("sh"); argv[0] != want || argv[4] != "80" {
		t.Errorf("got %q", argv)
	}
	if got := sh.Env(Values{ModuleName: "shell"}); !slices.Equal(got, []string{"PROPERTYHASH={}"}) {
		t.Errorf("got %q", got)
	}
}

const allowed = "Allowed: modulename, command, environment, directory, ready, health, watchdog, stop, ports, portmode, starttimeout, backoff, log, outside, operator, user, groups, limits, sha256"

const substitutable = "allowed are ${instancename}, ${modulename}, ${module}, ${tcpport}, ${httpport}, ${wsport}, ${propertyhash}"

func TestMistakes(t *testing.T) {
	t.Setenv("PATH", "/nowhere")
	for _, tt := range []struct{ name, text, want string }{
		{"broken JSON", "{\n  \"modulename\": \"x\",\n}",
			"FILE:3:1: broken JSON: invalid character '}' looking for beginning of object key string"},
		{"unknown key", `{"modulename": "x", "comand": ["./echo"]}`,
			`FILE:1:21: comand: unknown key; did you mean "command"? ` + allowed},
		{"key of a later version", `{"modulename": "x", "command": ["./echo"], "pool": "bob"}`,
			`FILE:1:44: pool: unknown key. ` + allowed},
		{"wrong type", `{"modulename": 5, "command": "./echo"}`,
			"FILE:1:16: modulename: found the number 5, wanted a string\n" +
				`FILE:1:30: command: found the string "./echo", wanted an array`},
		{"nothing", `{}`,
			"FILE:1:1: modulename: missing; it is the name by which needs ask for the module\n" +
				`FILE:1:1: command: missing or empty; it is the executable and its arguments, as in ["./echo", "--http", "${httpport}"]`},
		{"long name", `{"modulename": "` + strings.Repeat("x", 256) + `", "command": ["./echo"]}`,
			`FILE:1:16: modulename: found "` + strings.Repeat("x", 40) + `", wanted at most 255 bytes without control characters`},
		{"star inside", `{"modulename": "a*b", "command": ["./echo"]}`,
			`FILE:1:16: modulename: found "a*b", a star may only stand at the end, behind a beginning, as in "dotnet:*"`},
		{"only a star", `{"modulename": "*", "command": ["./echo"]}`,
			`FILE:1:16: modulename: found "*", a star may only stand at the end, behind a beginning, as in "dotnet:*"`},

		{"no such command", `{"modulename": "x", "command": ["./ecko"]}`,
			"FILE:1:33: command[0]: HOME/ecko does not exist; put the program there, or correct the path"},
		{"no such absolute command", `{"modulename": "x", "command": ["/no/ecko"]}`,
			"FILE:1:33: command[0]: /no/ecko does not exist; put the program there, or correct the path"},
		{"not in PATH", `{"modulename": "x", "command": ["ecko"]}`,
			`FILE:1:33: command[0]: "ecko" is in no directory of PATH (/nowhere); install it, or name it with its path`},
		{"not executable", `{"modulename": "x", "command": ["modules/x.json"]}`,
			"FILE:1:33: command[0]: FILE may not be executed; make it executable with chmod +x"},
		{"a directory", `{"modulename": "x", "command": ["./modules"]}`,
			"FILE:1:33: command[0]: can not run HOME/modules: is a directory; wanted an executable file"},
		{"below a file", `{"modulename": "x", "command": ["./echo/x"]}`,
			"FILE:1:33: command[0]: can not run HOME/echo/x: stat HOME/echo/x: not a directory; wanted an executable file"},
		{"empty command", `{"modulename": "x", "command": [""]}`, "FILE:1:33: command[0]: empty; it is the executable"},
		{"command from the LAN", `{"modulename": "d:*", "command": ["./${module}"]}`,
			`FILE:1:35: command[0]: found "./${module}"; which executable runs is not for the LAN to say, write it out`},
		{"NUL", `{"modulename": "x", "command": ["./echo", "a\u0000"]}`,
			"FILE:1:43: command[1]: has a NUL character, which no argument can have"},

		{"no such directory", `{"modulename": "x", "command": ["./echo"], "directory": "none"}`,
			"FILE:1:33: command[0]: HOME/none/echo does not exist; put the program there, or correct the path\n" +
				"FILE:1:57: directory: stat HOME/none: no such file or directory; make it, or name another directory"},
		{"directory is a file", `{"modulename": "x", "command": ["./echo"], "directory": "echo"}`,
			"FILE:1:33: command[0]: can not run HOME/echo/echo: stat HOME/echo/echo: not a directory; wanted an executable file\n" +
				"FILE:1:57: directory: HOME/echo is no directory"},
		{"empty directory", `{"modulename": "x", "command": ["./echo"], "directory": ""}`,
			"FILE:1:57: directory: empty; leave the key out for the runtime directory"},

		{"unknown substitution", `{"modulename": "x", "command": ["./echo", "a${htpport}${module}${X}"]}`,
			"FILE:1:43: command[1]: unknown substitution ${htpport}; " + substitutable + "\n" +
				"FILE:1:43: command[1]: unknown substitution ${X}; " + substitutable},
		{"open substitution", `{"modulename": "x", "command": ["./echo", "${module}${httpport"]}`,
			`FILE:1:43: command[1]: a "${" without "}"`},
		{"port without the protocol", `{"modulename": "x", "ports": ["tcp"], "command": ["./echo", "${tcpport} ${httpport}"]}`,
			`FILE:1:61: command[1]: ${httpport} has no value, since "ports" does not name http`},
		{"unknown in the environment", `{"modulename": "x", "command": ["./echo"], "environment": {"A": "${pid}"}}`,
			"FILE:1:65: environment.A: unknown substitution ${pid}; " + substitutable},
		{"propertyhash behind sh -c", `{"modulename": "x", "command": ["/bin/sh", "-c", "run '${propertyhash}'"]}`,
			`FILE:1:50: command[2]: ${propertyhash} behind -c of a shell, where its value would run as a program; ` +
				`use the environment variable: set "environment": {"PROPERTYHASH": "${propertyhash}"} and write "$PROPERTYHASH" with the quotes`},
		{"port behind sh -c", `{"modulename": "x", "command": ["/bin/sh", "-ec", "run ${httpport}"]}`,
			`FILE:1:51: command[2]: ${httpport} behind -c of a shell, where its value would run as a program; use the environment variable $HTTP_PORT`},
		{"instance behind sh -c", `{"modulename": "x", "command": ["/bin/sh", "-c", "run ${instancename}"]}`,
			`FILE:1:50: command[2]: ${instancename} behind -c of a shell, where its value would run as a program; ` +
				`use the environment variable, "$MACHINEAGENT_INSTANCE" with the quotes`},
		{"shell's own braces", `{"modulename": "x", "command": ["/bin/sh", "-c", "run ${HOME}"]}`,
			`FILE:1:50: command[2]: ${HOME} behind -c of a shell, where its value would run as a program; use the environment variable, "$HOME" with the quotes`},
		{"arguments of a script", `{"modulename": "x", "command": ["/bin/sh", "-c", "exec run \"$1\"", "sh", "${propertyhash}"]}`, ""},

		{"variable of the agent", `{"modulename": "x", "command": ["./echo"], "environment": {"ALLEX_SPAWN": ""}}`,
			"FILE:1:75: environment.ALLEX_SPAWN: is set by the agent; choose another name"},
		{"odd variable", `{"modulename": "x", "command": ["./echo"], "environment": {"A=": "b"}}`,
			`FILE:1:59: environment: "A="="b" can not be set; names are not empty and have no '=', and neither has a NUL`},
		{"ready", `{"modulename": "x", "command": ["./echo"], "ready": {"kind": "hope"}}`,
			`FILE:1:62: ready.kind: found "hope", allowed are port, register, notify, http, grpc, log, delay`},
		{"limits", `{"modulename": "x", "command": ["./echo"], "limits": {"nofile": [64, 128], "nice": 5, "umask": "027", "oomscore": -5, "core": 0, "memlock": "64MiB", "stack": "infinity", "memory": "1GiB", "cpu": 0.5, "pids": 100}}`, ""},
		{"limit of no name", `{"modulename": "x", "command": ["./echo"], "limits": {"files": 5}}`,
			"FILE:1:64: limits.files: unknown limit; allowed are memory, cpu, pids, nice, oomscore, umask, as, core, cputime, data, fsize, locks, memlock, msgqueue, nofile, nproc, rss, rttime, sigpending, stack"},
		{"limits of no sense", `{"modulename": "x", "command": ["./echo"], "limits": {"nofile": [128, 64], "nice": 20, "umask": "8", "core": -1, "as": [1], "data": "99999999999TiB"}}`,
			"FILE:1:65: limits.nofile: the soft limit is higher than the hard one\n" +
				"FILE:1:84: limits.nice: found 20, allowed are -20 to 19\n" +
				"FILE:1:97: limits.umask: found \"8\", wanted an octal number as a string, such as \"027\"\n" +
				"FILE:1:110: limits.core: found -1, wanted a number such as 1024 or \"64MiB\", or \"infinity\"\n" +
				"FILE:1:120: limits.as: found [1], wanted [soft, hard]\n" +
				"FILE:1:133: limits.data: found \"99999999999TiB\", wanted a number such as 1024 or \"64MiB\", or \"infinity\""},
		{"log of no sense", `{"modulename": "x", "command": ["./echo"], "log": {"maxsize": 5, "keep": -1}}`,
			"FILE:1:63: log.maxsize: found 5, wanted at least 64KiB\n" +
				"FILE:1:74: log.keep: found -1, allowed are 0 to 1000"},
		{"limits of a tree of no sense", `{"modulename": "x", "command": ["./echo"], "limits": {"memory": "64M", "cpu": 3600, "pids": 0}}`,
			"FILE:1:65: limits.memory: found \"64M\", wanted a number of bytes such as 1024 or \"64MiB\"\n" +
				"FILE:1:79: limits.cpu: found 3600, allowed are 0.01 to 1024 processors, such as 0.5; seconds of processor time are limited by cputime\n" +
				"FILE:1:93: limits.pids: found 0, allowed are 1 to 2147483647"},
		{"a limit under which nothing starts", `{"modulename": "x", "command": ["./echo"], "limits": {"memory": 1024}}`,
			`FILE:1:65: limits.memory: found 1024, allowed are 1MiB and more`},
		{"no limits", `{"modulename": "x", "command": ["./echo"], "limits": 5}`,
			`FILE:1:54: limits: found 5, wanted an object such as {"nofile": 1024, "umask": "027"}`},
		{"user", `{"modulename": "x", "command": ["./echo"], "user": "no such"}`,
			`FILE:1:52: user: there is no user "no such" on this machine; make it, or name another one`},
		{"groups of nobody", `{"modulename": "x", "command": ["./echo"], "groups": ["adm"]}`,
			"FILE:1:54: groups: are those of a user; name the user, too"},
		{"checksum", `{"modulename": "x", "command": ["./echo"], "sha256": "abc"}`,
			`FILE:1:54: sha256: found "abc", wanted 64 hexadecimal digits, as sha256sum prints them`},
		{"health", `{"modulename": "x", "command": ["./echo"], "health": {"live": {"kind": "port"}, "ready": {"kind": "http", "path": "/up", "interval": "1s", "timeout": "500ms", "failures": 1}}}`, ""},
		{"health of no sense", `{"modulename": "x", "command": ["./echo"], "health": {"live": {"kind": "log"}, "ready": {"kind": "port", "path": "/", "interval": "1ms", "timeout": "2s", "failures": 0}}}`,
			"FILE:1:72: health.live.kind: found \"log\", allowed are port, http, grpc, tcp, ws, command\n" +
				"FILE:1:114: health.ready.path: does not go with the kind \"port\"; leave it out, or choose another kind\n" +
				"FILE:1:131: health.ready.interval: found 1ms, allowed are 100ms and more\n" +
				"FILE:1:149: health.ready.timeout: found 2s, wanted more than 0s and at most the interval of 1ms\n" +
				"FILE:1:167: health.ready.failures: found 0, allowed are 1 and more"},
		{"ready by nothing", `{"modulename": "x", "command": ["./echo"], "ready": {"kind": "log"}}`,
			`FILE:1:53: ready: the kind "log" needs a pattern, a regular expression for a line of its output`},
		{"ready by what is no pattern", `{"modulename": "x", "command": ["./echo"], "ready": {"kind": "log", "pattern": "("}}`,
			"FILE:1:80: ready.pattern: missing closing ): `(`; wanted a regular expression as of Go or RE2"},
		{"ready by a page on no port", `{"modulename": "x", "command": ["./echo"], "ports": ["tcp"], "ready": {"kind": "http", "path": "healthz"}}`,
			"FILE:1:71: ready: asks the http port, which \"ports\" does not name; name it there, or say \"port\" with another one here\n" +
				"FILE:1:96: ready.path: found \"healthz\", wanted the path of a page, such as \"/healthz\""},
		{"ready after no time", `{"modulename": "x", "command": ["./echo"], "ready": {"kind": "delay"}}`,
			`FILE:1:53: ready: the kind "delay" needs a delay, such as "2s"`},
		{"ready too late", `{"modulename": "x", "command": ["./echo"], "starttimeout": "1s", "ready": {"kind": "delay", "delay": "1s"}}`,
			"FILE:1:102: ready.delay: found 1s, wanted more than 0s and less than the start timeout of 1s"},
		{"a key of another kind", `{"modulename": "x", "command": ["./echo"], "ready": {"kind": "register", "path": "/"}}`,
			`FILE:1:82: ready.path: does not go with the kind "register"; leave it out, or choose another kind`},
		{"ready by its word", `{"modulename": "x", "command": ["./echo"], "ports": [], "ready": {"kind": "notify"}, "watchdog": "1m"}`, ""},
		{"a watchdog of no sense", `{"modulename": "x", "command": ["./echo"], "watchdog": "-1s"}`,
			`FILE:1:56: watchdog: found -1s, allowed are 0s and more`},
		{"ready by gRPC", `{"modulename": "x", "command": ["./echo"], "ready": {"kind": "grpc", "service": "a.B"}}`, ""},
		{"ready by gRPC on no port", `{"modulename": "x", "command": ["./echo"], "ports": ["http"], "ready": {"kind": "grpc"}}`,
			`FILE:1:72: ready: asks the tcp port, which "ports" does not name; name it there, or say "port" with another one here`},
		{"health by an answer and a handshake", `{"modulename": "x", "command": ["./echo"], "health": {"live": {"kind": "tcp", "send": "PING\r\n", "expect": "^\\+PONG"}, "ready": {"kind": "ws", "path": "/feed", "successes": 2}}}`, ""},
		{"health by a command", `{"modulename": "x", "command": ["./echo"], "health": {"ready": {"kind": "command", "command": ["./echo", "${httpport}", "${instancename}"]}}}`, ""},
		{"health by a command of no sense", `{"modulename": "x", "command": ["./echo"], "health": {"live": {"kind": "command", "command": ["/bin/sh", "-c", "echo ${tcpport} ${propertyhash}"], "successes": 1}, "ready": {"kind": "command", "path": "/"}}}`,
			"FILE:1:112: health.live.command[2]: ${tcpport} behind -c of a shell, where its value would run as a program; use the environment variable $TCP_PORT\n" +
				"FILE:1:112: health.live.command[2]: ${propertyhash} is not known here after the agent has been started again; have the process keep what its check needs\n" +
				"FILE:1:161: health.live.successes: does not go with \"live\": who is not alive is replaced, and does not come back; leave it out\n" +
				"FILE:1:174: health.ready.command: missing or empty; it is the executable and its arguments, as in [\"./echo\", \"--http\", \"${httpport}\"]\n" +
				"FILE:1:202: health.ready.path: does not go with the kind \"command\"; leave it out, or choose another kind"},
		{"health by an answer of no sense", `{"modulename": "x", "command": ["./echo"], "health": {"ready": {"kind": "tcp", "expect": "(", "pattern": "x", "successes": 0}}}`,
			"FILE:1:90: health.ready.expect: missing closing ): `(`; wanted a regular expression as of Go or RE2\n" +
				"FILE:1:95: health.ready.pattern: unknown key. Allowed: kind, port, path, service, send, expect, command, interval, timeout, failures, successes\n" +
				"FILE:1:124: health.ready.successes: found 0, allowed are 1 and more"},
		{"ready by a page", `{"modulename": "x", "command": ["./echo"], "ports": ["ws"], "ready": {"kind": "http", "port": "ws", "path": "/up?x=1"}}`, ""},
		{"ready by a line", `{"modulename": "x", "command": ["./echo"], "ports": [], "ready": {"kind": "log", "pattern": "^up$"}}`, ""},
		{"ready without ports", `{"modulename": "x", "command": ["./echo"], "ports": []}`,
			`FILE:1:53: ports: without ports the module is never ready by "port"; name one, or say "ready": {"kind": "register"}`},
		{"no ports", `{"modulename": "x", "command": ["./echo"], "ports": [], "ready": {"kind": "register"}}`, ""},
		{"ports", `{"modulename": "x", "command": ["./echo"], "ports": ["tcp", "udp", "tcp"]}`,
			"FILE:1:61: ports[1]: unknown protocol \"udp\": allowed are tcp, http, ws\n" +
				"FILE:1:68: ports[2]: tcp is there twice"},
		{"port mode", `{"modulename": "x", "command": ["./echo"], "portmode": "kept"}`,
			`FILE:1:56: portmode: unknown port mode "kept": allowed are reserved, released, passed`},
		{"passed", `{"modulename": "x", "command": ["./echo"], "portmode": "passed", "ready": {"kind": "http"}, "health": {"live": {"kind": "http"}}}`, ""},
		{"passed and ready by nothing said", `{"modulename": "x", "command": ["./echo"], "portmode": "passed"}`,
			"FILE:1:1: ready: with the portmode \"passed\" the agent listens itself, so that a port accepts whether the process is well or not; " +
				`ask in another way, such as "ready": {"kind": "http", "path": "/"}`},
		{"passed and well by a port", `{"modulename": "x", "command": ["./echo"], "portmode": "passed", "ready": {"kind": "register"}, "health": {"live": {"kind": "port"}}}`,
			"FILE:1:116: health.live: with the portmode \"passed\" the agent listens itself, so that a port accepts whether the process is well or not; " +
				`ask in another way, such as "live": {"kind": "http", "path": "/"}`},
		{"passed and well by a connection", `{"modulename": "x", "command": ["./echo"], "portmode": "passed", "ready": {"kind": "register"}, "health": {"live": {"kind": "tcp", "send": "PING"}}}`,
			"FILE:1:116: health.live: with the portmode \"passed\" the agent listens itself, so that a port accepts whether the process is well or not; " +
				`ask in another way, such as "live": {"kind": "tcp", "expect": "."}`},
		{"passed and well by an answer", `{"modulename": "x", "command": ["./echo"], "portmode": "passed", "ready": {"kind": "register"}, "health": {"live": {"kind": "tcp", "expect": "^hello"}}}`, ""},
		{"passed without ports", `{"modulename": "x", "command": ["./echo"], "portmode": "passed", "ports": [], "ready": {"kind": "register"}, "environment": {"LISTEN_FDS": "0"}}`,
			"FILE:1:56: portmode: \"passed\" is for ports, and \"ports\" names none; name one there, or leave the key out\n" +
				"FILE:1:140: environment.LISTEN_FDS: is set by the agent; choose another name"},
		{"signal", `{"modulename": "x", "command": ["./echo"], "stop": {"signal": "term"}}`,
			`FILE:1:63: stop.signal: there is no signal "term" on this system; write it like SIGTERM`},
		{"times", `{"modulename": "x", "command": ["./echo"], "stop": {"grace": "-1ms", "timeout": "-1s"}, "starttimeout": "0s",
			"backoff": {"initial": "-1s", "max": "-2s", "reset": "-1ms"}}`,
			"FILE:1:62: stop.grace: found -1ms, allowed are 0s and more\n" +
				"FILE:1:81: stop.timeout: found -1s, allowed are 0s and more\n" +
				"FILE:1:105: starttimeout: found 0s, allowed are 1ms and more\n" +
				"FILE:2:27: backoff.initial: found -1s, allowed are 0s and more\n" +
				"FILE:2:41: backoff.max: found -2s, allowed are -1s and more\n" +
				"FILE:2:57: backoff.reset: found -1ms, allowed are 1ms and more"},
		{"outside", `{"modulename": "x", "command": ["./echo"], "outside": {}}`,
			"FILE:1:55: outside.users: wanted the names of local users, at least one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			home := catalogue(t, map[string]string{"x.json": tt.text})
			file := filepath.Join(home, "modules", "x.json")
			c, err := Load(filepath.Join(home, "modules"))
			got := ""
			if err != nil {
				got = strings.NewReplacer(file, "FILE", home, "HOME").Replace(err.Error())
				if _, ok := errors.AsType[*jsonfile.Error](err); !ok || c != nil {
					t.Errorf("got %v and a %T", c, err)
				}
			}
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// Every file's mistakes come in one error.
func TestMistakesOfSeveralFiles(t *testing.T) {
	home := catalogue(t, map[string]string{
		"a.json": `{"modulename": "echo", "command": ["./echo"]}`,
		"b.json": `{"modulename": "echo", "command": ["./ecko"]}`,
		"c.json": `{`,
		"d.json": `{"command": ["./echo"]}`,
		"e.json": `{"command": ["./echo"]}`,
	})
	dir := filepath.Join(home, "modules") + "/"
	if err := os.Symlink("nowhere", dir+"f.json"); err != nil {
		t.Fatal(err)
	}
	_, err := Load(dir)
	want := dir + `b.json:1:16: modulename: "echo" is also in ` + dir + "a.json; remove one of the two\n" +
		dir + "b.json:1:36: command[0]: " + home + "/ecko does not exist; put the program there, or correct the path\n" +
		dir + "c.json:1:1: broken JSON: unexpected end of JSON input\n" +
		dir + "d.json:1:1: modulename: missing; it is the name by which needs ask for the module\n" +
		dir + "e.json:1:1: modulename: missing; it is the name by which needs ask for the module\n" +
		"can not read a module: open " + dir + "f.json: no such file or directory"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if _, err := Load(filepath.Join(home, "echo")); err == nil || !strings.HasPrefix(err.Error(), "can not read the module directory: ") {
		t.Errorf("a file as module directory: got %v", err)
	}
}

func TestShellScripts(t *testing.T) {
	for command, want := range map[string][]int{
		"sh -c SCRIPT":                      {2},
		"/usr/bin/bash -lc SCRIPT a":        {2},
		"bash --norc -eu -c SCRIPT":         {4},
		"bash --rcfile f -c SCRIPT":         {4},
		"bash -c -o pipefail SCRIPT sh a":   {4},
		"bash -euo pipefail -c SCRIPT":      {4},
		"bash +O extglob -c SCRIPT":         {4},
		"dash -c -- SCRIPT":                 {3},
		"env A=b ksh -c SCRIPT":             {4},
		"zsh -c - SCRIPT":                   {3},
		"busybox ash -c SCRIPT":             {3},
		"sudo sh -c SCRIPT -c sh -c SCRIPT": {3, 7},
		"sh file -c a":                      nil,
		"sh":                                nil,
		"sh -c":                             nil,
		"bash --norc":                       nil,
		"python3 -c SCRIPT":                 nil,
		"./echo -c a":                       nil,
	} {
		if got := shellScripts(strings.Fields(command)); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", command, got, want)
		}
	}
}

// Text without ${} is what it was; names stand for their values whatever is
// around them, and values are not looked into again.
func TestSubstituteProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := Values{InstanceName: rapid.StringMatching(`[a${}]*`).Draw(t, "value"), ModuleName: "m"}
		var text, want strings.Builder
		for _, part := range rapid.SliceOf(rapid.StringMatching(`[a$}]*`)).Draw(t, "parts") {
			part = strings.TrimRight(part, "$")
			text.WriteString(part + "${instancename}")
			want.WriteString(part + v.InstanceName)
		}
		if got := substitute(text.String(), v); got != want.String() {
			t.Fatalf("%q became %q, want %q", text.String(), got, want.String())
		}
	})
}

// FuzzParse: every text is a module that keeps what Module promises, or has
// mistakes.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"modulename": "dotnet:*", "command": ["sh", "-c", "x", "${module}"], "environment": {"A": "${wsport}"}}`))
	f.Add([]byte(`{"modulename": "x", "command": ["/bin/sh"], "ports": ["ws"], "backoff": {"max": "1h"}, "outside": {"users": ["a"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, doc := parse("/d/modules/x.json", data)
		if doc.Err() != nil {
			return
		}
		if m.Name == "" || m.PortMode == 0 || m.StartTimeout <= 0 || m.Backoff.Max < m.Backoff.Initial {
			t.Errorf("got %+v", m)
		}
		argv := m.Argv(Values{InstanceName: "i", ModuleName: "m", Ports: table.Ports{TCP: 1, HTTP: 2, WS: 3}})
		if !filepath.IsAbs(argv[0]) {
			t.Errorf("command %q", argv)
		}
		for _, text := range append(argv[1:], m.Env(Values{})...) {
			if strings.ContainsRune(text, 0) {
				t.Errorf("%q has a NUL", text)
			}
		}
		for _, i := range shellScripts(m.Command) {
			if _, _, _, ok := cut(m.Command[i]); ok {
				t.Errorf("script %q", m.Command[i])
			}
		}
	})
}

// A mark is of one text, and survives being written.
func TestMark(t *testing.T) {
	a, b := Module{Sum: sum([]byte(`{"a": 1}`))}, Module{Sum: sum([]byte(`{"a": 2}`))}
	if same := (&Module{Sum: sum([]byte(`{ "a":1 }`))}); a.Mark() != same.Mark() || a.Mark() == b.Mark() || a.Mark() == (Mark{}) {
		t.Errorf("%v, %v and %v", a.Mark(), same.Mark(), b.Mark())
	}
	text, err := a.Mark().MarshalText()
	var read Mark
	if err = errors.Join(err, read.UnmarshalText(text)); err != nil || read != a.Mark() {
		t.Errorf("%s was read as %v, %v", text, read, err)
	}
	for _, text := range []string{"", "0", "00010203fcfdfe", "00010203fcfdfeff0", "00010203fcfdfeff00", "00010203fcfdfefg"} {
		if read.UnmarshalText([]byte(text)) == nil || read != a.Mark() {
			t.Errorf("%q was read as %v", text, read)
		}
	}
}
