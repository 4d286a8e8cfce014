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
// like the original's.
type file struct {
	LANManagerAddress        string            `json:"lanmanageraddress"`
	LANManagerPort           *int              `json:"lanmanagerport"`
	LANManagerProtocol       string            `json:"lanmanagerprotocol"`
	LANManagerPortCorrection int               `json:"lanmanagerportcorrection"`
	Address                  *string           `json:"address"`
	PortRangeStart           portRangeStart    `json:"portrangestart"`
	PortRangeSize            int               `json:"portrangesize"`
	PortQuarantine           jsonfile.Duration `json:"portquarantine"`
	RuntimeDirectory         string            `json:"runtimedirectory"`
	Socket                   string            `json:"socket"`
	StateDirectory           string            `json:"statedirectory"`
	ModuleDirectory          string            `json:"moduledirectory"`
	Name                     string            `json:"name"`
	MaxProcesses             int               `json:"maxprocesses"`
	OrphanGrace              jsonfile.Duration `json:"orphangrace"`
	StopUnneeded             bool              `json:"stopunneeded"`
	EndStrays                bool              `json:"endstrays"`
	Log                      logFile           `json:"log"`
	TLS                      *tlsFile          `json:"tls"`
	TokenFile                *string           `json:"tokenfile"`
	MetricsAddress           *string           `json:"metricsaddress"`
	Tracing                  *tracingFile      `json:"tracing"`
}

type portRangeStart struct {
	TCP  int `json:"tcp"`
	HTTP int `json:"http"`
	WS   int `json:"ws"`
}

type tlsFile struct {
	CA          *string `json:"ca"`
	Certificate *string `json:"certificate"`
	Key         *string `json:"key"`
}

type tracingFile struct {
	Endpoint string `json:"endpoint"`
}

type logFile struct {
	Level    string        `json:"level"`
	Format   string        `json:"format"`
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
