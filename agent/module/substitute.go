package module

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/allexgo/machine-agent/lan/table"
)

// Values is what the substitutions of one process stand for. The names and the
// property hash are the LAN's choice and go in as they are; a command must be
// one that any text can be given to.
type Values struct {
	InstanceName, ModuleName string
	Ports                    table.Ports
	PropertyHash             json.RawMessage // nil is {}
}

// Argv returns the command for v; Argv[0] is absolute.
func (m *Module) Argv(v Values) []string { return argv(m.Command, v) }

func argv(command []string, v Values) []string {
	argv := slices.Clone(command)
	for i, argument := range argv[1:] {
		argv[i+1] = substitute(argument, v)
	}
	return argv
}

// Env returns the module's own environment for v, as sorted "name=value". It
// comes on top of what every child gets (design section 6) and may replace
// variables such as PORT there.
func (m *Module) Env(v Values) []string {
	env := make([]string, 0, len(m.Environment))
	for _, name := range slices.Sorted(maps.Keys(m.Environment)) {
		env = append(env, name+"="+substitute(m.Environment[name], v))
	}
	return env
}

// substitutions are the known ${names}.
func substitutions() []string {
	return []string{"instancename", "modulename", "module", "tcpport", "httpport", "wsport", "propertyhash"}
}

func (v Values) value(name string) string {
	switch name {
	case "instancename":
		return v.InstanceName
	case "modulename":
		return v.ModuleName
	case "module": // the part behind the colon
		_, behind, ok := strings.Cut(v.ModuleName, ":")
		if !ok {
			return v.ModuleName
		}
		return behind
	case "tcpport":
		return strconv.Itoa(v.Ports.TCP)
	case "httpport":
		return strconv.Itoa(v.Ports.HTTP)
	case "wsport":
		return strconv.Itoa(v.Ports.WS)
	default: // propertyhash; a catalogue has no other
		return cmp.Or(string(v.PropertyHash), "{}")
	}
}

func substitute(text string, v Values) string {
	var b strings.Builder
	for {
		before, name, rest, ok := cut(text)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		b.WriteString(v.value(name))
		text = rest
	}
}

// cut splits text around its first ${name}; without one all is before.
func cut(text string) (before, name, rest string, ok bool) {
	before, rest, ok = strings.Cut(text, "${")
	if !ok {
		return text, "", "", false
	}
	name, rest, ok = strings.Cut(rest, "}")
	if !ok {
		return text, "", "", false
	}
	return before, name, rest, true
}
