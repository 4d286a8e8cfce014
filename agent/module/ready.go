package module

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/allexgo/machine-agent/agent/port"
)

// readyKinds are the kinds of readiness with the keys that go with each.
var readyKinds = []struct {
	kind ReadyKind
	keys []string
}{
	{ReadyPort, []string{"port"}},
	{ReadyRegister, nil},
	{ReadyHTTP, []string{"port", "path"}},
	{ReadyLog, []string{"pattern"}},
	{ReadyDelay, []string{"delay"}},
}

// ready checks what the module says of its readiness. It comes after ports.
func (c *check) ready() {
	var kinds, keys []string
	for _, k := range readyKinds {
		kinds = append(kinds, string(k.kind))
		if k.kind == c.module.Ready.Kind {
			keys = k.keys
		}
	}
	f, r := &c.file.Ready, &c.module.Ready
	if !slices.Contains(kinds, f.Kind) {
		c.doc.Add("ready.kind", "found %q, allowed are %s", f.Kind, strings.Join(kinds, ", "))
		return
	}
	for key, given := range map[string]bool{"port": f.Port != nil, "path": f.Path != nil, "pattern": f.Pattern != nil, "delay": f.Delay != nil} {
		if given && !slices.Contains(keys, key) {
			c.doc.Add("ready."+key, "does not go with the kind %q; leave it out, or choose another kind", f.Kind)
		}
	}
	switch r.Kind {
	case ReadyPort:
		c.readyPort("")
	case ReadyHTTP:
		c.readyPort(port.HTTP.String())
		c.readyPath()
	case ReadyLog:
		c.readyPattern()
	case ReadyDelay:
		if f.Delay == nil {
			c.doc.Add("ready", "the kind \"delay\" needs a delay, such as \"2s\"")
		} else if r.Delay = time.Duration(*f.Delay); r.Delay <= 0 || r.Delay >= c.module.StartTimeout {
			c.doc.Add("ready.delay", "found %s, wanted more than 0s and less than the start timeout of %s", r.Delay, c.module.StartTimeout)
		}
	}
}

// readyPort finds out which port is asked; without a word about it that of the
// protocol otherwise, or any.
func (c *check) readyPort(otherwise string) {
	f := &c.file.Ready
	name, place := otherwise, "ready"
	if f.Port != nil {
		name, place = *f.Port, "ready.port"
	}
	switch p, err := port.ParseProtocol(name); {
	case len(c.module.Ports) == 0:
		c.doc.Add("ports", "without ports the module is never ready by %q; "+
			"name one, or say \"ready\": {\"kind\": \"register\"}", f.Kind)
	case name == "": // any port will do
	case err != nil:
		c.doc.Add(place, "%s", err)
	case !slices.Contains(c.module.Ports, p):
		c.doc.Add(place, "asks the %s port, which \"ports\" does not name; name it there, or say \"port\" with another one here", p)
	default:
		c.module.Ready.Protocol = p
	}
}

func (c *check) readyPath() {
	path := "/"
	if c.file.Ready.Path != nil {
		path = *c.file.Ready.Path
	}
	if _, err := url.ParseRequestURI(path); err != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
		c.doc.Add("ready.path", "found %q, wanted the path of a page, such as \"/healthz\"", path)
		return
	}
	c.module.Ready.Path = path
}

func (c *check) readyPattern() {
	if c.file.Ready.Pattern == nil || *c.file.Ready.Pattern == "" {
		c.doc.Add("ready", "the kind \"log\" needs a pattern, a regular expression for a line of its output")
		return
	}
	pattern, err := regexp.Compile(*c.file.Ready.Pattern)
	if err != nil {
		c.doc.Add("ready.pattern", "%s; wanted a regular expression as of Go or RE2", strings.TrimPrefix(fmt.Sprint(err), "error parsing regexp: "))
		return
	}
	c.module.Ready.Pattern = pattern
}
