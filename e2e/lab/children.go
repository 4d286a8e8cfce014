package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Child is a process that an agent of the lab started, or a descendant of one,
// as the system shows it. Two Children that are equal are the same process.
type Child struct {
	Agent   string // its name
	PID     int
	Start   string // clock ticks since boot
	Command string
}

// Children are the living processes of each instance, found by their
// environment. Only Linux shows it; elsewhere there seem to be none.
func (l *Lab) Children() map[string][]Child {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	all := make(map[string][]Child)
	for _, dir := range names {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if instance, child, ok := l.look(pid); ok {
			all[instance] = append(all[instance], child)
		}
	}
	return all
}

// Tree is the living process of that pid with its descendants, as far as none of
// them has left its parent. Unlike Children it also knows those that have written
// over their environment.
func Tree(pid int) []Child {
	start := startTime(pid)
	if start == "" {
		return nil
	}
	command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	all := []Child{{PID: pid, Start: start, Command: string(bytes.ReplaceAll(command, []byte{0}, []byte(" ")))}}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, Tree(child)...)
			}
		}
	}
	return all
}

// look tells what a process is to the lab. The environment of a zombie is empty.
func (l *Lab) look(pid int) (instance string, c Child, ok bool) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	environment, err := os.ReadFile(dir + "environ")
	if err != nil {
		return "", Child{}, false
	}
	for variable := range strings.SplitSeq(string(environment), "\x00") {
		if name, found := strings.CutPrefix(variable, "MACHINEAGENT_INSTANCE="); found {
			instance = name
		} else if socket, found := strings.CutPrefix(variable, "MACHINEAGENT_ADDRESS=unix:"+l.Dir+"/"); found {
			c.Agent = filepath.Dir(socket)
		}
	}
	command, _ := os.ReadFile(dir + "cmdline")
	c.PID, c.Start, c.Command = pid, startTime(pid), string(bytes.ReplaceAll(command, []byte{0}, []byte(" ")))
	return instance, c, c.Start != "" && c.Agent != "" && leads(pid)
}

// startTime is field 22 of the stat file; empty if the process is gone.
func startTime(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	const behindName = 22 - 3 // the name, field 2, is in parentheses and may hold anything
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) <= behindName {
		return ""
	}
	return fields[behindName]
}

// Born is when the process was started, give or take the hundredths of a second in
// which Linux counts.
func (c Child) Born() time.Time {
	text, _ := os.ReadFile("/proc/uptime")
	first, _, _ := strings.Cut(string(text), " ")
	up, _ := strconv.ParseFloat(first, 64)
	start, _ := strconv.ParseFloat(c.Start, 64)
	return time.Now().Add(-time.Duration((up - start/100) * float64(time.Second)))
}

// Alive tells whether the process has not ended. A zombie has.
func (c Child) Alive() bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.PID))
	return err == nil && c.Exists() && !bytes.Contains(text, []byte(") Z "))
}

// leads tells whether a pid is that of a process. The process may have ended since it
// was listed, and the number be a thread's by now.
func leads(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && bytes.Contains(text, fmt.Appendf(nil, "\nTgid:\t%d\n", pid))
}

// Status is what the system says of the process, for a failure.
func (c Child) Status() string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.PID))
	if err != nil {
		return "gone by now"
	}
	var said []string
	for line := range strings.Lines(string(text)) {
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "Name", "State", "PPid", "Threads":
			said = append(said, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(said, ", ")
}

// Exists tells whether the system still has anything of the process.
func (c Child) Exists() bool { return startTime(c.PID) == c.Start }

// Kill ends the process with SIGKILL, and nobody else: the handle is opened
// before it is certain whose it is.
func (c Child) Kill() {
	p, err := os.FindProcess(c.PID)
	if err != nil {
		return
	}
	defer func() { _ = p.Release() }()
	if c.Exists() {
		_ = p.Kill() // it may have ended meanwhile
	}
}
