// Package config is the agent's configuration: allexmasterconfig.json as design
// section 7 has it, read strictly, with everything filled in and made absolute.
//
// Config is a value and holds nothing open. agent and cmd may import it.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// Config is what the agent runs with. All paths are absolute.
type Config struct {
	LANManager       LANManager
	Address          string        // IP address that we answer the LAN manager with; empty: the one it sees
	PortRanges       [3]port.Range // tcp, http, ws; they do not overlap
	PortQuarantine   time.Duration // in which a released port goes to no other instance
	RuntimeDirectory string        // working directory of the children
	Socket           string        // path of the Unix socket, or name of the pipe
	StateDirectory   string
	ModuleDirectory  string
	Name             string        // of this machine, for people
	MaxProcesses     int           // 0: no limit
	OrphanGrace      time.Duration // before a process that another machine serves as well is stopped
	StopUnneeded     bool          // also stop processes without need and service
	EndStrays        bool          // end processes of an agent before that no record tells of
	Log              Log
	Tracing          Tracing
	MetricsAddress   string // where the metrics are shown, an IP address and a port; empty: nowhere
}

// LANManager says where the LAN manager is, and how it and we know each other.
// The files are read by Secrets; none of them is open.
type LANManager struct {
	Protocol       string // ws, or wss: WebSocket over TLS
	Address        string // host name or IP address
	Port           int    // 0: those of Ports
	PortCorrection int    // 0 if Port is given
	TLS            TLS
	TokenFile      string // holds the token that we show; empty: we show none
}

// TLS are the files of wss. Certificate and Key come together or not at all.
type TLS struct {
	CA          string // who vouches for the LAN manager; empty: those whom this machine trusts
	Certificate string // ours, if the LAN manager asks for one
	Key         string
}

// Log says how the agent writes its own log, and how much it keeps of those of
// its processes.
type Log struct {
	Level    string // trace, debug, info, warn or error
	Format   string // text or json
	MaxTotal int64  // bytes of the logs of all instances together; 0: no bound
}

// Tracing says where traces are sent.
type Tracing struct {
	Endpoint string // URL of a collector of OTLP over HTTP, with its path; empty: none are sent
}

// FileName is the name of the configuration file; HiddenFileName is that of the
// original, which is read if only that exists.
const (
	FileName       = "allexmasterconfig.json"
	HiddenFileName = ".allexmasterconfig.json"
)

// defaultFile is what Create writes. It says what people
// change first; the rest has its defaults.
const defaultFile = `{
  "lanmanageraddress": "127.0.0.1",
  "portrangestart": { "tcp": 15000, "http": 16000, "ws": 17000 }
}
`

// Load reads the configuration file of the directory dir. Without one (found) it
// is the defaults, and file is where Create would write them. If there are
// mistakes in the file the error is a *jsonfile.Error with all of them; of cfg
// only ModuleDirectory is set then, if it is known, so that the mistakes in the
// modules can be told as well. Load changes nothing.
func Load(dir string) (cfg Config, file string, found bool, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return Config{}, "", false, err
	}
	for _, name := range []string{FileName, HiddenFileName} {
		file = filepath.Join(dir, name)
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Config{}, file, true, fmt.Errorf("can not read the configuration: %w", err)
		}
		cfg, err = load(file, data, dir)
		return cfg, file, true, err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return Config{}, "", false, fmt.Errorf("there is no directory %s; make it, or name another one", dir)
	}
	return Default(dir), filepath.Join(dir, FileName), false, nil
}

// Create writes the defaults into a file that is not there.
func Create(file string) error {
	if err := jsonfile.Create(file, []byte(defaultFile), true); err != nil {
		return fmt.Errorf(
			"there is no configuration, and the default one can not be made: %w; "+
				"make the directory writable for the user that agentd runs as, or write the file yourself", err)
	}
	return nil
}

// load is Parse plus what only a look at the machine can tell.
func load(name string, data []byte, dir string) (Config, error) {
	cfg, doc := parse(name, data, dir)
	if info, err := os.Stat(cfg.RuntimeDirectory); err != nil {
		doc.Add("runtimedirectory", "%s; make it, or name another directory", err)
	} else if !info.IsDir() {
		doc.Add("runtimedirectory", "%s is no directory", cfg.RuntimeDirectory)
	}
	cfg.LANManager.checkFiles(doc)
	modules := cfg.ModuleDirectory
	if modules == dir {
		doc.Add("moduledirectory", "this file lies there, and every .json file there is a module; name another directory, such as \"modules\"")
		modules = ""
	}
	if err := doc.Err(); err != nil {
		return Config{ModuleDirectory: modules}, err
	}
	return cfg, nil
}

// Parse turns the text of a configuration file into a Config. Relative paths in
// it are below dir, which is absolute. The error is a *jsonfile.Error with all
// mistakes. It looks at nothing but data.
func Parse(name string, data []byte, dir string) (Config, error) {
	cfg, doc := parse(name, data, dir)
	if err := doc.Err(); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// Default is the configuration of an empty file; dir is as in Parse.
func Default(dir string) Config {
	f := defaults()
	return f.config(dir)
}

func parse(name string, data []byte, dir string) (Config, *jsonfile.Document) {
	f := defaults()
	doc := jsonfile.Read(name, data, &f)
	cfg := f.config(dir)
	f.check(doc, cfg)
	return cfg, doc
}

// LocalIP is the address as one of this machine's, or nil. With it the LAN manager
// sees us under the address that we tell it.
func LocalIP(address string) net.IP {
	ip := net.ParseIP(address)
	if ip == nil {
		return nil
	}
	// Whoever can bind it has it. Nothing listens: the socket is closed at once.
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: ip})
	if err != nil {
		return nil
	}
	l.Close()
	return ip
}
