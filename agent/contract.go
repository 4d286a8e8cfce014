package agent

import (
	"cmp"
	"encoding/json"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/lan/table"
)

// spec is what to start for a need.
func (a *Agent) spec(m *module.Module, n *table.Need, r state.Record) process.Spec {
	s := process.Spec{
		Instance:  n.InstanceName,
		Argv:      m.Argv(values(n, r.Ports)),
		Env:       a.environment(m, n, r.Ports),
		Directory: cmp.Or(m.Directory, a.RuntimeDirectory),
		Log:       r.Log,
		Cgroup:    r.Identity.Cgroup,
		Limits:    m.Limits,
		SHA256:    m.SHA256,
		Launcher:  a.Launcher,
	}
	if m.User != nil {
		s.User = &m.User.User
	}
	return s
}

// environment is all that a child finds in its environment (design section 6).
// What the module sets wins.
func (a *Agent) environment(m *module.Module, n *table.Need, ports table.Ports) []string {
	env := inherited(m.User)
	env = append(env,
		"ALLEX_SPAWN="+spawnRecord(n, ports),
		"ALLEX_RUNTIMEDIRECTORY="+a.RuntimeDirectory,
		"MACHINEAGENT_ADDRESS=unix:"+a.Socket,
		"MACHINEAGENT_INSTANCE="+n.InstanceName,
	)
	for name, port := range map[string]int{"TCP_PORT": ports.TCP, "HTTP_PORT": ports.HTTP, "WS_PORT": ports.WS, "PORT": ports.HTTP} {
		if port != 0 {
			env = append(env, name+"="+strconv.Itoa(port))
		}
	}
	if m.Notifies() {
		env = append(env, "NOTIFY_SOCKET="+a.Notify.Path())
	}
	if m.Watchdog != 0 { // no WATCHDOG_PID: it need not be the leader who says it, and without one all may
		env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(m.Watchdog.Microseconds(), 10))
	}
	return override(env, m.Env(values(n, ports)))
}

// override adds settings to env in place of those of the same names. A name
// that is there twice would be either, from program to program.
func override(env, settings []string) []string {
	name := func(e string) string { n, _, _ := strings.Cut(e, "="); return n }
	set := make(map[string]bool)
	for _, e := range settings {
		set[name(e)] = true
	}
	return append(slices.DeleteFunc(env, func(e string) bool { return set[name(e)] }), settings...)
}

// inherited is what a child gets of the agent's own environment, and what it
// would find after a login of the user it runs as; nil is the agent's own.
func inherited(as *module.User) []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case name == "PATH", name == "LANG", name == "TZ", name == "TMPDIR", strings.HasPrefix(name, "LC_"):
			env = append(env, e)
		}
	}
	if as != nil {
		env = append(env, "HOME="+as.Home, "USER="+as.Name, "LOGNAME="+as.Name)
	} else if u, err := user.Current(); err == nil {
		env = append(env, "HOME="+u.HomeDir, "USER="+u.Username, "LOGNAME="+u.Username)
	}
	return append(env, "SHELL=/bin/sh")
}

// spawnRecord is ALLEX_SPAWN as the original hands it to its children
// (lan/PROTOCOL.md section 12.2).
func spawnRecord(n *table.Need, ports table.Ports) string {
	port := func(p int) any {
		if p == 0 {
			return nil
		}
		return p
	}
	object := func(raw json.RawMessage) any {
		if raw == nil {
			return struct{}{}
		}
		return raw
	}
	record := struct {
		InstanceName string `json:"instancename"`
		ModuleName   string `json:"modulename"`
		PropertyHash any    `json:"propertyhash"`
		Strategies   any    `json:"strategies"`
		Closed       any    `json:"closed"`
		TCPPort      any    `json:"tcpport"`
		TCPOptions   any    `json:"tcpoptions"`
		HTTPPort     any    `json:"httpport"`
		HTTPOptions  any    `json:"httpoptions"`
		WSPort       any    `json:"wsport"`
		WSOptions    any    `json:"wsoptions"`
		PID          any    `json:"pid"`
		Debug        any    `json:"debug"`
		DebugBrk     any    `json:"debug_brk"`
		Prof         any    `json:"prof"`
		Gate         any    `json:"gate"`
		MasterPID    int    `json:"masterpid"`
	}{
		InstanceName: n.InstanceName,
		ModuleName:   n.ModuleName[strings.Index(n.ModuleName, ":")+1:], // a domain such as dotnet: is not the child's business
		PropertyHash: object(n.PropertyHash),
		Strategies:   object(n.Strategies),
		TCPPort:      port(ports.TCP),
		TCPOptions:   n.Rest["tcpoptions"],
		HTTPPort:     port(ports.HTTP),
		HTTPOptions:  n.Rest["httpoptions"],
		WSPort:       port(ports.WS),
		WSOptions:    n.Rest["wsoptions"],
		Debug:        n.Rest["debug"],
		DebugBrk:     n.Rest["debug_brk"],
		Prof:         n.Rest["prof"],
		Gate:         n.Rest["gate"],
		MasterPID:    os.Getpid(),
	}
	text, err := json.Marshal(record)
	if err != nil {
		// Only raw JSON from the wire can be at fault, and the wire has read it.
		return "{}"
	}
	return string(text)
}
