package module

import (
	"fmt"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// keysOf are the keys that go with each kind of readiness and of health.
var keysOf = map[ReadyKind][]string{
	ReadyPort:     {"port"},
	ReadyRegister: nil,
	ReadyNotify:   nil,
	ReadyHTTP:     {"port", "path"},
	ReadyGRPC:     {"port", "service"},
	ReadyLog:      {"pattern"},
	ReadyDelay:    {"delay"},
	HealthTCP:     {"port", "send", "expect"},
	HealthWS:      {"port", "path"},
	HealthCommand: {"command"},
}

// ready checks what the module says of its readiness. It comes after ports.
func (c *check) ready() {
	f := &c.file.Ready
	q := question{c, "ready", asked{Kind: f.Kind, Port: f.Port, Path: f.Path, Service: f.Service, Pattern: f.Pattern, Delay: f.Delay}, &c.module.Ready}
	q.read(ReadyPort, ReadyRegister, ReadyNotify, ReadyHTTP, ReadyGRPC, ReadyLog, ReadyDelay)
	if runtime.GOOS != "linux" && c.module.Notifies() {
		c.doc.Add("ready", "this system does not tell who says READY=1 or WATCHDOG=1; choose another kind, and leave \"watchdog\" out")
	}
}

// health checks what is asked of a process that is ready.
func (c *check) health() {
	if c.file.Health == nil {
		return
	}
	c.module.Health.Live = c.healthCheck("health.live", c.file.Health.Live)
	c.module.Health.Ready = c.healthCheck("health.ready", c.file.Health.Ready)
}

func (c *check) healthCheck(place string, f *checkFile) *Check {
	if f == nil {
		return nil
	}
	h := &Check{
		Ready:     Ready{Kind: ReadyKind(f.Kind)},
		Interval:  orDefault(f.Interval, 10*time.Second),
		Timeout:   orDefault(f.Timeout, time.Second),
		Failures:  3,
		Successes: 1,
	}
	if f.Failures != nil {
		h.Failures = *f.Failures
	}
	if f.Successes != nil {
		h.Successes = *f.Successes
	}
	q := question{c, place, asked{Kind: f.Kind, Port: f.Port, Path: f.Path, Service: f.Service, Send: f.Send, Expect: f.Expect, Command: f.Command}, &h.Ready}
	q.read(ReadyPort, ReadyHTTP, ReadyGRPC, HealthTCP, HealthWS, HealthCommand)
	const least = 100 * time.Millisecond
	if h.Interval < least {
		c.doc.Add(place+".interval", "found %s, allowed are %s and more", h.Interval, least)
	}
	if h.Timeout <= 0 || h.Timeout > h.Interval {
		c.doc.Add(place+".timeout", "found %s, wanted more than 0s and at most the interval of %s", h.Timeout, h.Interval)
	}
	if h.Failures < 1 {
		c.doc.Add(place+".failures", "found %d, allowed are 1 and more", h.Failures)
	}
	switch {
	case h.Successes < 1:
		c.doc.Add(place+".successes", "found %d, allowed are 1 and more", h.Successes)
	case f.Successes != nil && place == "health.live":
		c.doc.Add(place+".successes", "does not go with \"live\": who is not alive is replaced, and does not come back; leave it out")
	}
	return h
}

// asked is what can be written of a question.
type asked struct {
	Kind                         string
	Port, Path, Service, Pattern *string
	Send, Expect                 *string
	Delay                        *jsonfile.Duration
	Command                      []string
}

// question is one that is asked of a process, as it is written and as it is
// meant.
type question struct {
	*check
	place string // in the file
	file  asked
	to    *Ready
}

func (q question) read(kinds ...ReadyKind) {
	f := q.file
	kind := ReadyKind(f.Kind)
	if !slices.Contains(kinds, kind) {
		names := make([]string, len(kinds))
		for i, k := range kinds {
			names[i] = string(k)
		}
		q.doc.Add(q.place+".kind", "found %q, allowed are %s", f.Kind, strings.Join(names, ", "))
		return
	}
	for key, given := range map[string]bool{
		"port": f.Port != nil, "path": f.Path != nil, "service": f.Service != nil, "pattern": f.Pattern != nil, "delay": f.Delay != nil,
		"send": f.Send != nil, "expect": f.Expect != nil, "command": f.Command != nil,
	} {
		if given && !slices.Contains(keysOf[kind], key) {
			q.doc.Add(q.place+"."+key, "does not go with the kind %q; leave it out, or choose another kind", f.Kind)
		}
	}
	if q.module.PortMode == port.Passed && (kind == ReadyPort || kind == HealthTCP && f.Expect == nil) {
		other := `"kind": "http", "path": "/"`
		if kind == HealthTCP {
			other = `"kind": "tcp", "expect": "."`
		}
		q.doc.Add(q.place, "with the portmode \"passed\" the agent listens itself, so that a port accepts whether the process is well or not; "+
			"ask in another way, such as \"%s\": {%s}", q.place[strings.LastIndex(q.place, ".")+1:], other)
		return
	}
	switch kind {
	case ReadyPort:
		q.port("")
	case ReadyHTTP:
		q.port(port.HTTP.String())
		q.path()
	case ReadyGRPC:
		q.port(port.TCP.String())
		if f.Service != nil {
			q.to.Service = *f.Service
		}
	case HealthTCP:
		q.port(port.TCP.String())
		q.answer()
	case HealthWS:
		q.port(port.WS.String())
		q.path()
	case HealthCommand:
		q.program()
	case ReadyLog:
		q.pattern()
	case ReadyDelay:
		q.delay()
	}
}

// port finds out which port is asked; without a word about it that of the
// protocol otherwise, or any.
func (q question) port(otherwise string) {
	name, place := otherwise, q.place
	if q.file.Port != nil {
		name, place = *q.file.Port, q.place+".port"
	}
	switch p, err := port.ParseProtocol(name); {
	case len(q.module.Ports) == 0:
		q.doc.Add("ports", "without ports the module is never ready by %q; "+
			"name one, or say \"ready\": {\"kind\": \"register\"}", q.file.Kind)
	case name == "": // any port will do
	case err != nil:
		q.doc.Add(place, "%s", err)
	case !slices.Contains(q.module.Ports, p):
		q.doc.Add(place, "asks the %s port, which \"ports\" does not name; name it there, or say \"port\" with another one here", p)
	default:
		q.to.Protocol = p
	}
}

func (q question) path() {
	path := "/"
	if q.file.Path != nil {
		path = *q.file.Path
	}
	if _, err := url.ParseRequestURI(path); err != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
		q.doc.Add(q.place+".path", "found %q, wanted the path of a page, such as \"/healthz\"", path)
		return
	}
	q.to.Path = path
}

func (q question) pattern() {
	if q.file.Pattern == nil || *q.file.Pattern == "" {
		q.doc.Add(q.place, "the kind \"log\" needs a pattern, a regular expression for a line of its output")
		return
	}
	q.to.Pattern = q.regexp("pattern", *q.file.Pattern)
}

// answer is what is said on a port, and what is to come back.
func (q question) answer() {
	if q.file.Send != nil {
		q.to.Send = *q.file.Send
	}
	if q.file.Expect != nil {
		q.to.Pattern = q.regexp("expect", *q.file.Expect)
	}
}

func (q question) regexp(key, text string) *regexp.Regexp {
	pattern, err := regexp.Compile(text)
	if err != nil {
		q.doc.Add(q.place+"."+key, "%s; wanted a regular expression as of Go or RE2", strings.TrimPrefix(fmt.Sprint(err), "error parsing regexp: "))
	}
	return pattern
}

// program is a command that asks. The property hash is not known to an agent that
// takes a process over.
func (q question) program() {
	place := q.place + ".command"
	q.to.Command = q.file.Command
	q.executable(place, q.to.Command)
	q.arguments(place, q.to.Command)
	for i, argument := range q.to.Command {
		if strings.Contains(argument, "${propertyhash}") {
			q.doc.Add(fmt.Sprintf("%s[%d]", place, i), "${propertyhash} is not known here after the agent has been started again; have the process keep what its check needs")
		}
	}
}

func (q question) delay() {
	if q.file.Delay == nil {
		q.doc.Add(q.place, "the kind \"delay\" needs a delay, such as \"2s\"")
		return
	}
	q.to.Delay = time.Duration(*q.file.Delay)
	if q.to.Delay <= 0 || q.to.Delay >= q.module.StartTimeout {
		q.doc.Add(q.place+".delay", "found %s, wanted more than 0s and less than the start timeout of %s", q.to.Delay, q.module.StartTimeout)
	}
}
