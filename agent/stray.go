package agent

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	"github.com/allexgo/machine-agent/lan/table"
)

// This file is about processes that bear the mark of this agent, the address in
// their environment, and that no record tells of.

// stray is such a process, if it is not taken over.
type stray struct {
	instance string
	identity process.Identity
}

// toldStrays is how many strays a status names.
const toldStrays = 10

// takeStrays looks for processes of ours that no record tells of. One whose record is
// damaged, or unfinished, so that it does not say which process it is, is taken over if
// it is certain which; all others are told, and ended if that is configured.
func (l *loop) takeStrays(damaged []state.Damaged, unfinished []state.Record, adopt func(state.Record, *process.Process)) {
	marked, err := process.FindMarked("MACHINEAGENT_ADDRESS=unix:" + l.Socket)
	if err != nil {
		l.Logger.Debug("processes without a record can not be looked for", "error", err)
		return
	}
	lost := map[string]bool{} // by their files
	for _, d := range damaged {
		lost[filepath.Base(d.File)] = true
	}
	of := map[string][]process.Marked{}
	var names []string
	for _, m := range marked {
		name := variable(m, "MACHINEAGENT_INSTANCE")
		if i := l.instances[name]; name == "" || i != nil && i.child != nil {
			continue // it came from a process that we have
		}
		if of[name] == nil {
			names = append(names, name)
		}
		of[name] = append(of[name], m)
	}
	for _, name := range names {
		file, err := state.FileName(name)
		n := slices.IndexFunc(unfinished, func(r state.Record) bool { return r.Instance == name })
		m, certain := l.leaderOf(name, of[name])
		switch {
		case !certain:
		case n >= 0:
			r := unfinished[n]
			r.Phase, r.Identity, r.StartTime = state.Running, m.Identity, l.started
			if l.retake(r, adopt) {
				continue
			}
		case err == nil && lost[file+".json"]:
			if l.retake(l.rebuilt(name, m), adopt) {
				continue
			}
		}
		for _, m := range of[name] {
			l.strays = append(l.strays, stray{name, m.Identity})
		}
	}
	l.endStrays()
}

// leaderOf is the one process of them that the agent started itself: the only
// leader of a session, in the cgroup of the instance if there are cgroups.
func (l *loop) leaderOf(name string, all []process.Marked) (leader process.Marked, certain bool) {
	cgroup, err := l.cgroup(name)
	if err != nil {
		return leader, false
	}
	for _, m := range all {
		if cgroup != "" && m.Identity.Cgroup != cgroup || !m.Leader {
			continue
		}
		if certain {
			return leader, false
		}
		leader, certain = m, true
	}
	leader.Identity.Cgroup = cgroup
	return leader, certain
}

// retake takes a process over by a record that tells it now.
func (l *loop) retake(r state.Record, adopt func(state.Record, *process.Process)) bool {
	p, err := process.Adopt(r.Identity)
	if err != nil {
		return false // it has just ended
	}
	l.Logger.Warn("a process whose record is damaged or unfinished is found again", "instance", r.Instance, "pid", r.Identity.PID)
	adopt(r, p)
	k := l.instances[r.Instance].child.keeper
	l.tasks.Go(func() {
		if err := k.save(func(*state.Record) {}); err != nil {
			l.Logger.Error("a running process could not be recorded; if the agent is killed now it has to be found again", "instance", r.Instance, "error", err)
		}
	})
	return true
}

// rebuilt is the record of a process. What it said, its environment says as well, the
// domain of the module apart.
func (l *loop) rebuilt(name string, m process.Marked) state.Record {
	port := func(of string) int {
		n, _ := strconv.Atoi(variable(m, of))
		return n
	}
	var spawned struct{ ModuleName string }
	_ = json.Unmarshal([]byte(variable(m, "ALLEX_SPAWN")), &spawned) // without it the module is not known
	r := state.Record{
		Instance: name, Module: spawned.ModuleName, Phase: state.Running, Identity: m.Identity, StartTime: l.started,
		Ports: table.Ports{TCP: port("TCP_PORT"), HTTP: port("HTTP_PORT"), WS: port("WS_PORT")},
		Log:   l.Store.LogPath(name), Origin: originStarted, Stop: module.DefaultStop,
	}
	if found, ok := l.modules().Find(r.Module); ok {
		r.Stop, r.PortMode = found.Stop, found.PortMode
	}
	return r
}

// variable is a variable of a process's environment.
func variable(m process.Marked, name string) string {
	for _, entry := range m.Environment {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// endStrays reports the strays, and ends them if that is configured.
func (l *loop) endStrays() {
	for _, s := range l.strays {
		if !l.EndStrays {
			l.Logger.Warn("a process of an agent on this socket has no record and is left alone", "instance", s.instance, "pid", s.identity.PID)
			continue
		}
		l.Logger.Warn("a process of an agent on this socket has no record and is ended", "instance", s.instance, "pid", s.identity.PID)
		if p, err := process.Adopt(s.identity); err == nil { // only if it still is that one
			if err := p.Signal(syscall.SIGKILL); err != nil {
				l.Logger.Error("a process without a record can not be ended", "instance", s.instance, "pid", s.identity.PID, "error", err)
			}
			p.Close()
		}
	}
}

// strayWarnings tell of the strays that still live.
func (l *loop) strayWarnings() (all []string) {
	l.strays = alive(l.strays)
	for n, s := range l.strays {
		if n == toldStrays {
			return append(all, fmt.Sprintf("and %d more processes without a record", len(l.strays)-n))
		}
		all = append(all, fmt.Sprintf("process %d of instance %q is not managed: an agent on this socket started it, and it has no record here; "+
			"end it, or set `endstrays` in the configuration", s.identity.PID, s.instance))
	}
	return all
}

func alive(all []stray) (left []stray) {
	for _, s := range all {
		if p, err := process.Watch(s.identity.PID); err == nil {
			if id := p.Identity(); id.StartTime == s.identity.StartTime {
				left = append(left, s)
			}
			p.Close()
		}
	}
	return left
}
