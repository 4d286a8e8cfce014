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

// file is a module as it is written.
type file struct {
	ModuleName   string            `json:"modulename"`
	Command      []string          `json:"command"`
	Environment  map[string]string `json:"environment"`
	Directory    *string           `json:"directory"`
	Ready        readyFile         `json:"ready"`
	Health       *healthFile       `json:"health"`
	Watchdog     jsonfile.Duration `json:"watchdog"`
	Stop         stopFile          `json:"stop"`
	Ports        []string          `json:"ports"`
	PortMode     string            `json:"portmode"`
	StartTimeout jsonfile.Duration `json:"starttimeout"`
	Backoff      backoffFile       `json:"backoff"`
	Log          logFile           `json:"log"`
	Outside      *outsideFile      `json:"outside"`
	Operator     bool              `json:"operator"`
	User         *string           `json:"user"`
	Groups       []string          `json:"groups"`
	Limits       *limitsFile       `json:"limits"`
	SHA256       *string           `json:"sha256"`
}

type readyFile struct {
	Kind    string             `json:"kind"`
	Port    *string            `json:"port"`
	Path    *string            `json:"path"`
	Service *string            `json:"service"`
	Pattern *string            `json:"pattern"`
	Delay   *jsonfile.Duration `json:"delay"`
}

type healthFile struct {
	Live  *checkFile `json:"live"`
	Ready *checkFile `json:"ready"`
}

type checkFile struct {
	Kind      string             `json:"kind"`
	Port      *string            `json:"port"`
	Path      *string            `json:"path"`
	Service   *string            `json:"service"`
	Send      *string            `json:"send"`
	Expect    *string            `json:"expect"`
	Command   []string           `json:"command"`
	Interval  *jsonfile.Duration `json:"interval"`
	Timeout   *jsonfile.Duration `json:"timeout"`
	Failures  *int               `json:"failures"`
	Successes *int               `json:"successes"`
}

func orDefault(d *jsonfile.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return time.Duration(*d)
}

type stopFile struct {
	Grace   jsonfile.Duration `json:"grace"`
	Signal  string            `json:"signal"`
	Timeout jsonfile.Duration `json:"timeout"`
}

type backoffFile struct {
	Initial jsonfile.Duration `json:"initial"`
	Max     jsonfile.Duration `json:"max"`
	Reset   jsonfile.Duration `json:"reset"`
}

type logFile struct {
	MaxSize jsonfile.Size `json:"maxsize"`
	Keep    int           `json:"keep"`
}

type outsideFile struct {
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
