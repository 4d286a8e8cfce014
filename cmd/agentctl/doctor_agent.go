package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// answers tells who is at the socket, and whether that one answers.
func (a answer) answers(socket string) []finding {
	if a.status == nil {
		return []finding{a.silence(socket)}
	}
	s := a.status
	p := page{now: a.now}
	var all []finding
	if a.server.pid == 0 {
		all = append(all, server{int(s.Pid), owner(socket)}.finding(socket))
	}
	all = append(all, finding{good, aboutAgent, fmt.Sprintf("%s %s answers, up %s", s.Name, s.Version, p.age(s.StartTime)), ""})
	if u := s.LastUpgrade; u.GetProblem() != "" {
		all = append(all, finding{warn, aboutAgent, "its last upgrade failed: " + u.Problem, "mend that and `agentctl upgrade` again"})
	}
	if a.err != nil {
		all = append(all, told(fail, aboutAgent, a.err))
	}
	return all
}

// silence is why an agent does not answer.
func (a answer) silence(socket string) finding {
	err := a.err
	f := told(fail, aboutAgent, err)
	if errors.Is(err, context.DeadlineExceeded) {
		f.Cure = "see in the agent's log what holds it up, or allow more time with --timeout"
	}
	if pid := a.server.pid; pid != 0 && errors.Is(err, context.DeadlineExceeded) {
		f.What = fmt.Sprintf("process %d has not answered within %s", pid, a.within)
		if suspended(pid) {
			f.What += ": it is stopped by a signal"
			f.Cure = fmt.Sprintf("let it go on with `kill -CONT %d`", pid)
		}
	}
	if errors.Is(err, client.ErrNoAgent) || errors.Is(err, client.ErrStranger) {
		f.About = aboutSocket
	}
	if errors.Is(err, client.ErrNoAgent) {
		if left, ok := leftover(socket); ok {
			return left
		}
	}
	return f
}

// told is an error of the client.
func told(g grade, about string, err error) finding {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return finding{g, about, e.Message, cure(e)}
	}
	return finding{g, about, err.Error(), ""}
}

// link is the agent's to the LAN manager.
func (a answer) link() finding {
	p := page{now: a.now}
	link := a.status.Link
	if link.GetConnected() {
		what := p.link(link) + ", seen as " + link.SeenAs
		switch link.Kind {
		case machineagentv1.LanManagerKind_LAN_MANAGER_KIND_OURS:
			what += "; it is that of this project"
		case machineagentv1.LanManagerKind_LAN_MANAGER_KIND_ORIGINAL:
			what += "; it is the original, which takes one agent of each address and lets its services flap with each new session"
		}
		return finding{good, aboutLANManager, what, ""}
	}
	f := split(fail, aboutLANManager, p.link(link))
	f.Cure = cmp.Or(f.Cure, lanManagerCure)
	return f
}

const lanManagerCure = "start it, or correct lanmanageraddress and lanmanagerport in the agent's configuration"

// warnings are the agent's own, but for those that are found here too.
func (a answer) warnings(f files) (all []finding) {
	var here []string
	if f.found {
		here = port.Check(f.config.PortRanges[:]...)
	}
	for _, text := range a.status.Warnings {
		if !slices.Contains(here, text) {
			all = append(all, split(warn, aboutAgent, text))
		}
	}
	return all
}

// strangers are programs that listen where a process of ours should.
func (a answer) strangers() (all []finding) {
	for _, lease := range a.leases {
		where := fmt.Sprintf("port %d of %q: %s", lease.Port, lease.Instance, lease.Detail)
		switch {
		case lease.Listener == machineagentv1.PortListener_PORT_LISTENER_STRANGER:
			all = append(all, finding{fail, aboutPorts, where, "end that program, or `agentctl restart " + lease.Instance + "` for another port"})
		case lease.Detail != "":
			f := split(warn, aboutPorts, where)
			f.Cure = cmp.Or(f.Cure, "have the process listen where its environment says")
			all = append(all, f)
		}
	}
	return all
}

// cgroups tells whether children can be ended with all that they start.
func cgroups(s *machineagentv1.GetStatusResponse) finding {
	if s.Cgroups {
		return finding{good, aboutCgroups, "every child has one of its own", ""}
	}
	return finding{warn, aboutCgroups, "children have none: what leaves its child's session can outlive it, and modules with limits of memory, cpu or pids do not run",
		"run agentd as root or with a delegated cgroup (systemd: Delegate=yes); its warnings say what it lacks"}
}
