package config

import (
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// file is the configuration as it is written: lower case without separators,
// like the original's. The comments of the fields are what docs/configuration.md
// says of the keys.
type file struct {
	// Where the LAN manager is: a host name or an IP address, without protocol and
	// port.
	LANManagerAddress string `json:"lanmanageraddress"`
	// The only port to look for the LAN manager on, 1 to 65535. Without it 23552 and
	// 23451 are tried in turn; with `wss` or `tokenfile` only 23552.
	LANManagerPort *int `json:"lanmanagerport"`
	// `ws`, or `wss`: WebSocket over TLS.
	LANManagerProtocol string `json:"lanmanagerprotocol"`
	// What is added to the ports 23552 and 23451, the same as `portcorrection` in
	// the LAN manager's `boot`. Not beside `lanmanagerport`.
	LANManagerPortCorrection int `json:"lanmanagerportcorrection"`
	// The IP address under which the LAN reaches what runs here. Without it, it is
	// the one that the LAN manager sees.
	Address *string `json:"address"`
	// The first port of each range from which processes get theirs, 1 to 65535. The
	// ranges must not overlap.
	PortRangeStart portRangeStart `json:"portrangestart"`
	// How many ports each range has, 1 and more; none may end behind 65535.
	PortRangeSize int `json:"portrangesize"`
	// How long a port that was given back goes to no other instance, `"0s"` and more.
	PortQuarantine jsonfile.Duration `json:"portquarantine"`
	// Working directory of the processes whose module names none. It must exist.
	RuntimeDirectory string `json:"runtimedirectory"`
	// Path of the Unix socket of the API; on Windows the name of its pipe.
	Socket string `json:"socket"`
	// Where the agent keeps what it knows of its processes, and their logs.
	StateDirectory string `json:"statedirectory"`
	// Where the modules are. Not the directory of this file. If it does not exist
	// there are no modules.
	ModuleDirectory string `json:"moduledirectory"`
	// Name of this machine for people, 1 to 255 bytes without control characters; by
	// default the host name.
	Name string `json:"name"`
	// The most processes that run here at a time. 0: no limit.
	MaxProcesses int `json:"maxprocesses"`
	// How long a process that another machine serves as well lives on, `"0s"` and more.
	OrphanGrace jsonfile.Duration `json:"orphangrace"`
	// Also stop processes for which there is neither a need nor a service.
	StopUnneeded bool `json:"stopunneeded"`
	// End processes that an agent before this one started here and that no record
	// tells of, instead of only naming them.
	EndStrays bool `json:"endstrays"`
	// The agent's own log, and how much is kept of those of the processes.
	Log logFile `json:"log"`
	// The files of `wss`, and only with it.
	TLS *tlsFile `json:"tls"`
	// File with the token that the agent shows to the LAN manager: one line of 1 to
	// 4096 visible ASCII characters. It is read at each dial.
	TokenFile *string `json:"tokenfile"`
	// IP address and port, such as `"127.0.0.1:9469"`, on which `/metrics` and
	// `/healthz` are shown. Without it they are not.
	MetricsAddress *string `json:"metricsaddress"`
	// Where traces are sent. Without it none are; see [traces.md](traces.md).
	Tracing *tracingFile `json:"tracing"`
}

type portRangeStart struct {
	// Of the TCP ports.
	TCP int `json:"tcp"`
	// Of the HTTP ports.
	HTTP int `json:"http"`
	// Of the WebSocket ports.
	WS int `json:"ws"`
}

type tlsFile struct {
	// Who vouches for the LAN manager: certificates in PEM. Without it those whom
	// this machine trusts.
	CA *string `json:"ca"`
	// The agent's certificate in PEM, if the LAN manager asks for one. Together with
	// `key` or not at all.
	Certificate *string `json:"certificate"`
	// Its key in PEM.
	Key *string `json:"key"`
}

type tracingFile struct {
	// URL of a collector of OTLP over HTTP, such as `"http://127.0.0.1:4318"`.
	// Without a path `/v1/traces` is meant.
	Endpoint string `json:"endpoint"`
}

type logFile struct {
	// What is logged: `trace`, `debug`, `info`, `warn` or `error`, and what is worse.
	Level string `json:"level"`
	// `text` or `json`.
	Format string `json:"format"`
	// The most that the logs of all processes together take on the disk, at least 1
	// MiB; what is oldest goes first. 0: no limit.
	MaxTotal jsonfile.Size `json:"maxtotal"`
}

func defaults() file {
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	return file{
		LANManagerAddress:  "127.0.0.1",
		LANManagerProtocol: protocolWS,
		PortRangeStart:     portRangeStart{TCP: 15000, HTTP: 16000, WS: 17000},
		PortRangeSize:      1000,
		PortQuarantine:     jsonfile.Duration(30 * time.Second),
		RuntimeDirectory:   ".",
		Socket:             defaultSocket,
		StateDirectory:     ".allexmaster",
		ModuleDirectory:    "modules",
		Name:               name,
		OrphanGrace:        jsonfile.Duration(10 * time.Second),
		Log:                logFile{Level: "info", Format: "text", MaxTotal: 10 << 30},
	}
}

// config is what f means; relative paths are below dir.
func (f *file) config(dir string) Config {
	absolute := func(path string) string {
		if filepath.IsAbs(path) {
			return filepath.Clean(path)
		}
		return filepath.Join(dir, path)
	}
	given := func(path *string) string {
		if value(path) == "" {
			return ""
		}
		return absolute(*path)
	}
	tls := value(f.TLS)
	return Config{
		LANManager: LANManager{
			Protocol:       f.LANManagerProtocol,
			Address:        f.LANManagerAddress,
			Port:           value(f.LANManagerPort),
			PortCorrection: f.LANManagerPortCorrection,
			TLS:            TLS{CA: given(tls.CA), Certificate: given(tls.Certificate), Key: given(tls.Key)},
			TokenFile:      given(f.TokenFile),
		},
		Address: value(f.Address),
		PortRanges: [3]port.Range{
			{Protocol: port.TCP, Start: f.PortRangeStart.TCP, Size: f.PortRangeSize},
			{Protocol: port.HTTP, Start: f.PortRangeStart.HTTP, Size: f.PortRangeSize},
			{Protocol: port.WS, Start: f.PortRangeStart.WS, Size: f.PortRangeSize},
		},
		PortQuarantine:   time.Duration(f.PortQuarantine),
		RuntimeDirectory: absolute(f.RuntimeDirectory),
		Socket:           absolute(f.Socket),
		StateDirectory:   absolute(f.StateDirectory),
		ModuleDirectory:  absolute(f.ModuleDirectory),
		Name:             f.Name,
		MaxProcesses:     f.MaxProcesses,
		OrphanGrace:      time.Duration(f.OrphanGrace),
		StopUnneeded:     f.StopUnneeded,
		EndStrays:        f.EndStrays,
		Log:              Log{Level: f.Log.Level, Format: f.Log.Format, MaxTotal: int64(f.Log.MaxTotal)},
		MetricsAddress:   value(f.MetricsAddress),
		Tracing:          Tracing{Endpoint: value(f.Tracing).url()},
	}
}

// tracesPath is where a collector takes traces, unless it is told otherwise.
const tracesPath = "/v1/traces"

// url is the endpoint with its path; empty if there is none.
func (t tracingFile) url() string {
	u, err := url.Parse(t.Endpoint)
	if err != nil || t.Endpoint == "" {
		return ""
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = tracesPath
	}
	return u.String()
}

// value is *p, or the zero value where the file is silent.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
