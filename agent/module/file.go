package module

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"path/filepath"
	"time"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// file is a module as it is written. The comments of the fields are what
// docs/configuration.md says of the keys.
type file struct {
	// Required. The name by which needs ask for the module, at most 255 bytes; or a
	// pattern, a beginning and a star, such as `"dotnet:*"`. A name goes before a
	// pattern, a longer pattern before a shorter one.
	ModuleName string `json:"modulename"`
	// Required. The executable and its arguments. The executable is a name that is
	// found in `PATH`, or a path; arguments may have substitutions, see below.
	Command []string `json:"command"`
	// Variables on top of what every process gets. Values may have substitutions.
	// Names that begin with `ALLEX_` or `MACHINEAGENT_` are the agent's, with the
	// port mode `passed` also those with `LISTEN_`.
	Environment map[string]string `json:"environment"`
	// Working directory; it must exist. Without it, it is the `runtimedirectory`.
	Directory *string `json:"directory"`
	// How a process shows that it is ready.
	Ready readyFile `json:"ready"`
	// What a process that is ready is asked time and again. Without it, nothing.
	Health *healthFile `json:"health"`
	// A process that is ready and has not said `WATCHDOG=1` for so long is replaced.
	// 0: it need not.
	Watchdog jsonfile.Duration `json:"watchdog"`
	// How a process is asked to end, and when it is made to.
	Stop stopFile `json:"stop"`
	// Which ports it wants: `tcp`, `http`, `ws`, each at most once; `[]` for none: then it has to name by `RegisterProcess` those that it opens itself, and is served when it has.
	Ports []string `json:"ports"`
	// How they are kept for it: `reserved`, `released` or `passed`; see [What a
	// child sees](../README.md#what-a-child-sees). `passed` only on Linux, and not
	// with `ready` or `health` of the kind `port`.
	PortMode string `json:"portmode"`
	// How long it may take to become ready, `"1ms"` and more.
	StartTimeout jsonfile.Duration `json:"starttimeout"`
	// How long a replacement waits. The first end after a healthy while costs no wait.
	Backoff backoffFile `json:"backoff"`
	// How much of the output of an instance is kept.
	Log logFile `json:"log"`
	// Who else may register processes of this module that the agent did not start.
	// Without it, root and the agent's own user.
	Outside *outsideFile `json:"outside"`
	// Its processes may call what operators may.
	Operator bool `json:"operator"`
	// The user that its processes run as. Without it, that of the agent. Another one
	// than that needs an agent that is root.
	User *string `json:"user"`
	// With `user`: the groups of its processes, by name, instead of those that the
	// user is in.
	Groups []string `json:"groups"`
	// What bounds a process, and an instance; see below.
	Limits *limitsFile `json:"limits"`
	// Checksum of the executable, 64 hexadecimal digits: nothing else is started.
	SHA256 *string `json:"sha256"`
}

type readyFile struct {
	// `port`: a port accepts. `http`: a page is answered with success. `grpc`:
	// `grpc.health.v1` says `SERVING`. `log`: a line of the output matches. `delay`:
	// it has lived so long. `register`: it has called `RegisterProcess`. `notify`:
	// it has said `READY=1` to `$NOTIFY_SOCKET`.
	Kind string `json:"kind"`
	// With `port`, `http` and `grpc`: which of its ports is asked. Without it any,
	// the HTTP one, the TCP one.
	Port *string `json:"port"`
	// With `http`: the path of the page; `/` without it.
	Path *string `json:"path"`
	// With `grpc`: the name of the service; the server as a whole without it.
	Service *string `json:"service"`
	// With `log`, and required there: a regular expression of RE2.
	Pattern *string `json:"pattern"`
	// With `delay`, and required there: more than `"0s"` and less than `starttimeout`.
	Delay *jsonfile.Duration `json:"delay"`
}

type healthFile struct {
	// After its failures the process is replaced.
	Live *checkFile `json:"live"`
	// After its failures the process leaves the LAN's table, and comes back after
	// its successes. It has the keys of `health.live`.
	Ready *checkFile `json:"ready"`
}

type checkFile struct {
	// Required. `port`, `http`, `grpc`: as with `ready`. `tcp`: its TCP port accepts
	// and answers as it should. `ws`: its WS port takes a WebSocket. `command`: a
	// program ends with exit code 0.
	Kind string `json:"kind"`
	// With `port`, `http`, `grpc`, `tcp` and `ws`: which of its ports is asked, if
	// not that of the kind.
	Port *string `json:"port"`
	// With `http` and `ws`: the path; `/` without it.
	Path *string `json:"path"`
	// With `grpc`: the name of the service; the server as a whole without it.
	Service *string `json:"service"`
	// With `tcp`: what is said when it has accepted.
	Send *string `json:"send"`
	// With `tcp`: a regular expression of RE2 that the answer has to match.
	Expect *string `json:"expect"`
	// With `command`, and required there: as that of the module, without
	// `${propertyhash}`.
	Command []string `json:"command"`
	// How long from one question to the next, `"100ms"` and more; each time up to a
	// tenth longer or shorter.
	Interval *jsonfile.Duration `json:"interval"`
	// How long an answer may take, at most the interval.
	Timeout *jsonfile.Duration `json:"timeout"`
	// How many in a row count, 1 and more.
	Failures *int `json:"failures"`
	// How many in a row make it well again, 1 and more. Only with `health.ready`.
	Successes *int `json:"successes"`
}

func orDefault(d *jsonfile.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return time.Duration(*d)
}

type stopFile struct {
	// How long it goes on after it has left the LAN's table, if the stop is planned.
	Grace jsonfile.Duration `json:"grace"`
	// The signal that asks it to end, such as `SIGTERM`. One that serves
	// `ChildService` is asked there instead.
	Signal string `json:"signal"`
	// When it is ended together with all that it has started. `"0s"`: at once.
	Timeout jsonfile.Duration `json:"timeout"`
}

type backoffFile struct {
	// The first wait; each further end doubles it.
	Initial jsonfile.Duration `json:"initial"`
	// The longest wait, not less than `initial`.
	Max jsonfile.Duration `json:"max"`
	// How long a process must have been healthy for its end to cost no wait, `"1ms"`
	// and more.
	Reset jsonfile.Duration `json:"reset"`
}

type logFile struct {
	// With more than that, at least 64 KiB, the head of a log goes into a file of
	// its own.
	MaxSize jsonfile.Size `json:"maxsize"`
	// How many of these files stay, 0 to 1000.
	Keep int `json:"keep"`
}

type outsideFile struct {
	// Names of local users, at least one.
	Users []string `json:"users"`
}

func defaults() file {
	return file{
		Ready:        readyFile{Kind: string(ReadyPort)},
		Stop:         stopFile{Signal: DefaultStop.Signal, Timeout: jsonfile.Duration(DefaultStop.Timeout)},
		Ports:        []string{port.TCP.String(), port.HTTP.String(), port.WS.String()},
		PortMode:     port.Reserved.String(),
		StartTimeout: jsonfile.Duration(30 * time.Second),
		Backoff: backoffFile{
			Initial: jsonfile.Duration(100 * time.Millisecond),
			Max:     jsonfile.Duration(time.Minute),
			Reset:   jsonfile.Duration(10 * time.Second),
		},
		Log: logFile{MaxSize: jsonfile.Size(DefaultLog.MaxSize), Keep: DefaultLog.Keep},
	}
}

// sum is that of a text of JSON, whatever its white space.
func sum(text []byte) [32]byte {
	var compact bytes.Buffer
	if json.Compact(&compact, text) != nil {
		return sha256.Sum256(text) // it is no JSON, and will be refused
	}
	return sha256.Sum256(compact.Bytes())
}

// parse reads the module of the file at path, which is absolute. What is wrong
// with it is in the document.
func parse(path string, data []byte) (*Module, *jsonfile.Document) {
	f := defaults()
	doc := jsonfile.Read(path, data, &f)
	m := &Module{
		Name:         f.ModuleName,
		File:         path,
		Sum:          sum(data),
		Command:      f.Command,
		Environment:  f.Environment,
		Ready:        Ready{Kind: ReadyKind(f.Ready.Kind)},
		Stop:         Stop{Grace: time.Duration(f.Stop.Grace), Signal: f.Stop.Signal, Timeout: time.Duration(f.Stop.Timeout)},
		StartTimeout: time.Duration(f.StartTimeout),
		Watchdog:     time.Duration(f.Watchdog),
		Backoff: Backoff{Initial: time.Duration(f.Backoff.Initial), Max: time.Duration(f.Backoff.Max),
			Reset: time.Duration(f.Backoff.Reset)},
		Log:      Log{MaxSize: int64(f.Log.MaxSize), Keep: f.Log.Keep},
		Operator: f.Operator,
	}
	if f.Outside != nil {
		m.Outside = f.Outside.Users
	}
	c := check{doc: doc, file: &f, module: m, start: filepath.Dir(filepath.Dir(path))}
	c.all()
	return m, doc
}
