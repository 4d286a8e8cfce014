package module

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/allexgo/machine-agent/agent/port"
)

// executable makes command[0] the absolute path of the executable, and sees to
// it that there is one.
func (c *check) executable(place string, command []string) {
	if len(command) == 0 {
		c.doc.Add(place, "missing or empty; it is the executable and its arguments, as in [\"./echo\", \"--http\", \"${httpport}\"]")
		return
	}
	name := command[0]
	path := name
	if strings.ContainsAny(name, "/"+string(filepath.Separator)) {
		path = absolute(c.start, name)
	}
	found, err := exec.LookPath(path)
	place += "[0]"
	switch {
	case name == "":
		c.doc.Add(place, "empty; it is the executable")
	case strings.Contains(name, "${"):
		c.doc.Add(place, "found %q; which executable runs is not for the LAN to say, write it out", name)
	case errors.Is(err, exec.ErrNotFound):
		c.doc.Add(place, "%q is in no directory of PATH (%s); install it, or name it with its path", name, os.Getenv("PATH"))
	case errors.Is(err, fs.ErrNotExist):
		c.doc.Add(place, "%s does not exist; put the program there, or correct the path", path)
	case errors.Is(err, fs.ErrPermission):
		c.doc.Add(place, "%s may not be executed; make it executable with chmod +x", path)
	case err != nil:
		c.doc.Add(place, "can not run %s: %s; wanted an executable file", path, errors.Unwrap(err))
	default:
		command[0] = found
	}
}

// arguments checks those of a command.
func (c *check) arguments(place string, command []string) {
	scripts := shellScripts(command)
	for i, argument := range command {
		path := fmt.Sprintf("%s[%d]", place, i)
		switch {
		case strings.Contains(argument, "\x00"):
			c.doc.Add(path, "has a NUL character, which no argument can have")
		case i == 0:
		case slices.Contains(scripts, i):
			c.script(path, argument)
		default:
			c.variables(path, argument)
		}
	}
}

// variables checks the substitutions in text.
func (c *check) variables(path, text string) {
	for {
		_, name, rest, ok := cut(text)
		if !ok {
			break
		}
		protocol, err := port.ParseProtocol(strings.TrimSuffix(name, "port"))
		switch {
		case !slices.Contains(substitutions(), name):
			c.doc.Add(path, "unknown substitution ${%s}; allowed are ${%s}", name, strings.Join(substitutions(), "}, ${"))
		case err == nil && !slices.Contains(c.module.Ports, protocol):
			c.doc.Add(path, "${%s} has no value, since \"ports\" does not name %s", name, protocol)
		}
		text = rest
	}
	if strings.Contains(text, "${") {
		c.doc.Add(path, "a \"${\" without \"}\"")
	}
}

// script refuses substitutions in the text of a shell script: their values come
// from the LAN and would be run.
func (c *check) script(path, text string) {
	_, name, _, ok := cut(text)
	if !ok {
		return
	}
	cure := fmt.Sprintf("use the environment variable, \"$%s\" with the quotes", name)
	switch name {
	case "tcpport", "httpport", "wsport":
		cure = fmt.Sprintf("use the environment variable $%s_PORT", strings.ToUpper(strings.TrimSuffix(name, "port")))
	case "instancename":
		cure = "use the environment variable, \"$MACHINEAGENT_INSTANCE\" with the quotes"
	case "modulename", "module", "propertyhash":
		variable := strings.ToUpper(name)
		cure = fmt.Sprintf("use the environment variable: set \"environment\": {%q: \"${%s}\"} and write \"$%s\" with the quotes",
			variable, name, variable)
	}
	c.doc.Add(path, "${%s} behind -c of a shell, where its value would run as a program; %s", name, cure)
}

// shellScripts returns the indexes of the elements that a shell runs as a
// script.
func shellScripts(command []string) (scripts []int) {
	shells := []string{"sh", "bash", "dash", "zsh", "ksh", "ash"}
	for i, element := range command {
		if !slices.Contains(shells, filepath.Base(element)) {
			continue
		}
		if j := shellScript(command[i+1:]); j >= 0 {
			scripts = append(scripts, i+1+j)
		}
	}
	return scripts
}

// shellScript returns the index of the script in a shell's arguments, or -1. It
// is the first behind a -c that is neither an option nor an option's value.
func shellScript(arguments []string) int {
	isScript, isValue := false, false
	for i, argument := range arguments {
		isLong := strings.HasPrefix(argument, "--")
		switch {
		case isValue:
			isValue = false
		case strings.HasPrefix(argument, "-"), strings.HasPrefix(argument, "+"):
			isScript = isScript || !isLong && argument[0] == '-' && strings.Contains(argument, "c")
			isValue = !isLong && strings.ContainsAny(argument, "oO") || argument == "--rcfile" || argument == "--init-file"
		case isScript:
			return i
		default:
			return -1 // a script's file
		}
	}
	return -1
}
