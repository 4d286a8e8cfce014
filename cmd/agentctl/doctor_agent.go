package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/allexgo/machine-agent/client"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// answers tells who is at the socket, and whether that one answers.
func (a answer) answers(socket string) []finding {
	if a.status == nil {
		return []finding{silence(socket, a.err)}
	}
	s := a.status
	p := page{now: a.now}
	all := []finding{
		{good, aboutSocket, fmt.Sprintf("%s is served by process %d%s", socket, s.Pid, owned(socket)), ""},
		{good, aboutAgent, fmt.Sprintf("%s %s answers, up %s", s.Name, s.Version, p.age(s.StartTime)), ""},
	}
	if u := s.LastUpgrade; u.GetProblem() != "" {
		all = append(all, finding{warn, aboutAgent, "its last upgrade failed: " + u.Problem, "mend that and `agentctl upgrade` again"})
	}
	if a.err != nil {
		all = append(all, told(fail, aboutAgent, a.err))
	}
	return all
}

// silence is why an agent does not answer.
func silence(socket string, err error) finding {
	f := told(fail, aboutAgent, err)
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

// warnings puts those of the agent behind what was found of it, but for those
// that were found here too.
func (a answer) warnings(found []finding) []finding {
	if a.status == nil {
		return found
	}
	var more []finding
	for _, text := range a.status.Warnings {
		if w := split(warn, aboutAgent, text); !slices.ContainsFunc(found, func(f finding) bool { return f.What == w.What }) {
			more = append(more, w)
		}
	}
	at := slices.IndexFunc(found, func(f finding) bool { return f.About == aboutLANManager })
	return slices.Insert(found, at, more...)
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
