package module

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// check looks at the meaning of a file, notes the mistakes and fills in of the
// module what needs a look at the machine.
type check struct {
	doc    *jsonfile.Document
	file   *file
	module *Module
	start  string // where relative paths begin: the directory that holds the catalogue's, then the module's own
}

func (c *check) all() {
	c.name()
	c.directory()
	c.ports()
	c.executable("command", c.module.Command)
	c.arguments("command", c.module.Command)
	c.environment()
	c.times()
	c.ready()
	c.health()
	c.user()
	c.limits()
	c.checksum()
	c.log()
	if _, err := process.ParseSignal(c.module.Stop.Signal); err != nil {
		c.doc.Add("stop.signal", "%s", err)
	}
	if c.file.Outside != nil && (len(c.module.Outside) == 0 || slices.Contains(c.module.Outside, "")) {
		c.doc.Add("outside.users", "wanted the names of local users, at least one")
	}
}

func (c *check) name() {
	name := c.module.Name
	prefix := strings.TrimSuffix(name, star)
	switch {
	case name == "":
		c.doc.Add("modulename", "missing; it is the name by which needs ask for the module")
	case len(name) > maxName || strings.ContainsFunc(name, unicode.IsControl):
		c.doc.Add("modulename", "found %.40q, wanted at most %d bytes without control characters", name, maxName)
	case prefix == "" || strings.Contains(prefix, star):
		c.doc.Add("modulename", "found %q, a star may only stand at the end, behind a beginning, as in \"dotnet:*\"", name)
	}
}

// The least and the most of a log: a generation is not to be smaller than a block
// of any file system, and their number not larger than a directory is good for.
const (
	leastLog        = 64 << 10
	mostGenerations = 1000
)

func (c *check) log() {
	if size := c.module.Log.MaxSize; size < leastLog {
		c.doc.Add("log.maxsize", "found %d, wanted at least 64KiB", size)
	}
	if keep := c.module.Log.Keep; keep < 0 || keep > mostGenerations {
		c.doc.Add("log.keep", "found %d, allowed are 0 to %d", keep, mostGenerations)
	}
}

func (c *check) directory() {
	if c.file.Directory == nil {
		return
	}
	dir := absolute(c.start, *c.file.Directory)
	c.start = dir
	switch info, err := os.Stat(dir); {
	case *c.file.Directory == "":
		c.doc.Add("directory", "empty; leave the key out for the runtime directory")
	case err != nil:
		c.doc.Add("directory", "%s; make it, or name another directory", err)
	case !info.IsDir():
		c.doc.Add("directory", "%s is no directory", dir)
	default:
		c.module.Directory = dir
	}
}

func (c *check) ports() {
	for i, name := range c.file.Ports {
		path := fmt.Sprintf("ports[%d]", i)
		p, err := port.ParseProtocol(name)
		if err != nil {
			c.doc.Add(path, "%s", err)
		} else if slices.Contains(c.module.Ports, p) {
			c.doc.Add(path, "%s is there twice", p)
		} else {
			c.module.Ports = append(c.module.Ports, p)
		}
	}
	mode, err := port.ParseMode(c.file.PortMode)
	if err != nil {
		c.doc.Add("portmode", "%s", err)
	}
	c.module.PortMode = mode
	switch {
	case mode != port.Passed:
	case runtime.GOOS != "linux":
		c.doc.Add("portmode", "on this system no sockets can be passed; choose another mode")
	case len(c.module.Ports) == 0:
		c.doc.Add("portmode", "\"passed\" is for ports, and \"ports\" names none; name one there, or leave the key out")
	}
}

func (c *check) environment() {
	for _, name := range slices.Sorted(maps.Keys(c.module.Environment)) {
		value := c.module.Environment[name]
		path := "environment." + name
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00"):
			c.doc.Add("environment", "%q=%q can not be set; names are not empty and have no '=', and neither has a NUL", name, value)
		case strings.HasPrefix(name, "ALLEX_"), strings.HasPrefix(name, "MACHINEAGENT_"),
			strings.HasPrefix(name, "LISTEN_") && c.module.PortMode == port.Passed:
			c.doc.Add(path, "is set by the agent; choose another name")
		default:
			c.variables(path, value)
		}
	}
}

func (c *check) times() {
	m := c.module
	for _, t := range []struct {
		path         string
		value, least time.Duration
	}{
		{"stop.grace", m.Stop.Grace, 0},
		{"stop.timeout", m.Stop.Timeout, 0},
		{"starttimeout", m.StartTimeout, time.Millisecond},
		{"watchdog", m.Watchdog, 0},
		{"backoff.initial", m.Backoff.Initial, 0},
		{"backoff.max", m.Backoff.Max, m.Backoff.Initial},
		{"backoff.reset", m.Backoff.Reset, time.Millisecond},
	} {
		if t.value < t.least {
			c.doc.Add(t.path, "found %s, allowed are %s and more", t.value, t.least)
		}
	}
}

func absolute(base, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(base, path)
}
