package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/allexgo/machine-agent/agent/module"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/internal/jsonfile"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// named is how many instances are named of those that have the same trouble.
const named = 3

// trying is what the agent decides on a need that it means to serve.
var trying = []pb.Decision{pb.Decision_DECISION_BID, pb.Decision_DECISION_STARTING, pb.Decision_DECISION_SERVED_HERE,
	pb.Decision_DECISION_BACKOFF, pb.Decision_DECISION_BID_PENDING, pb.Decision_DECISION_PORT_TAKEN, pb.Decision_DECISION_CAPACITY}

// serving is what an operator has said, or has to look at.
func (a answer) serving(catalogue *module.Catalogue) (all []finding) {
	s := a.status
	if s.Drained {
		all = append(all, finding{warn, aboutServing, "this machine is drained: nothing is served here", "`agentctl resume` when it may serve again"})
	}
	needs, processes := make(map[string]*pb.NeedDecision), make(map[string]*pb.Process)
	for _, n := range a.needs {
		needs[n.Need.GetInstance()] = n
	}
	for _, p := range a.processes {
		processes[p.Instance] = p
		switch {
		case p.CrashLoop:
			all = append(all, loop(p, needs[p.Instance].GetDecision())...)
		case p.State == pb.ProcessState_PROCESS_STATE_WITHDRAWN && !s.Drained:
			all = append(all, finding{warn, aboutServing, fmt.Sprintf("%q is withdrawn, pid %d runs and is not offered: %s", p.Instance, p.Pid, cmp.Or(p.Reason, "no reason is known")),
				logs(p.Instance) + " why, and mend it; a process that did not withdraw itself comes back when it is well"})
		}
	}
	var nowhere []*pb.NeedDecision // to be found in the catalogue
	for _, n := range a.needs {
		instance, p := n.Need.GetInstance(), processes[n.Need.GetInstance()]
		switch n.Decision {
		case pb.Decision_DECISION_NOT_CATALOGUED:
			if holds(catalogue, n.Need.GetModule()) {
				all = append(all, finding{warn, aboutServing, fmt.Sprintf("%q is not served here, though the files have its module: %s", instance, n.Detail),
					"`agentctl reload`, if the module is younger than the agent; else mend what it says"})
			} else {
				nowhere = append(nowhere, n)
			}
		case pb.Decision_DECISION_HELD:
			all = append(all, finding{warn, aboutServing, fmt.Sprintf("%q is held on this machine", instance), fmt.Sprintf("`agentctl start %s` when it may run here again", instance)})
		case pb.Decision_DECISION_PORT_TAKEN, pb.Decision_DECISION_CAPACITY:
			f := split(warn, aboutServing, fmt.Sprintf("%q can not be served here: %s", instance, n.Detail))
			f.Cure = cmp.Or(f.Cure, "`agentctl ps` and `agentctl ports` show what takes the room")
			all = append(all, f)
		case pb.Decision_DECISION_BID, pb.Decision_DECISION_STARTING, pb.Decision_DECISION_BACKOFF, pb.Decision_DECISION_BID_PENDING:
			switch {
			case p.GetCrashLoop() || p.GetState() == pb.ProcessState_PROCESS_STATE_WITHDRAWN || starved(p): // is told
			case p.GetFailures() > 0:
				all = append(all, unserved(p))
			case n.Decision == pb.Decision_DECISION_BACKOFF:
				all = append(all, finding{warn, aboutServing, fmt.Sprintf("%q is not served: %s", instance, n.Detail), "the agent offers it again by itself; `agentctl needs` tells when"})
			}
		}
	}
	all = append(all, uncatalogued(nowhere, a.moduleNames(catalogue))...)
	if len(all) == 0 && a.err == nil && len(a.starved()) == 0 {
		all = append(all, finding{good, aboutServing, fmt.Sprintf("%s here, %d served", plural(s.Processes, "process", "processes"), s.ServedHere), ""})
	}
	return all
}

// holds tells whether the files have a module.
func holds(c *module.Catalogue, name string) bool {
	if c == nil {
		return false
	}
	_, is := c.Find(name)
	return is
}

func logs(instance string) string { return fmt.Sprintf("see `agentctl logs %s`", instance) }

// loop judges a crash loop by what the agent makes of the need. Of an instance that
// nobody needs, or that an operator keeps from running, there is nothing to mend now.
func loop(p *pb.Process, d pb.Decision) []finding {
	f := finding{fail, aboutServing,
		fmt.Sprintf("%q is in a crash loop: it has ended %d times too soon, last: %s", p.Instance, p.Failures, p.LastReason),
		fmt.Sprintf("%s, mend it, and `agentctl start %s`", logs(p.Instance), p.Instance)}
	switch {
	case starved(p):
		return nil // is told of the agent's limits
	case p.Pid != 0, slices.Contains(trying, d):
	case d == pb.Decision_DECISION_SERVED_ELSEWHERE:
		f.Grade = warn
		f.What += "; another machine serves it now"
	default:
		return nil
	}
	return []finding{f}
}

// unserved is an instance that failed, and is no crash loop yet.
func unserved(p *pb.Process) finding {
	f := finding{warn, aboutServing, fmt.Sprintf("%q is not served: it has failed %s in a row, last: %s", p.Instance, plural(p.Failures, "time", "times"), p.LastReason), ""}
	if p.LastExit == nil { // there was no process, and the agent's reason says what to do
		f = split(f.Grade, f.About, f.What)
	}
	f.Cure = cmp.Or(f.Cure, logs(p.Instance)+" and mend it")
	return f
}

// uncatalogued are needs that this machine lacks the modules for.
func uncatalogued(needs []*pb.NeedDecision, modules []string) (all []finding) {
	if len(needs) > named {
		var names []string
		for _, n := range needs[:named] {
			names = append(names, fmt.Sprintf("%q%s", n.Need.GetInstance(), near(n, modules)))
		}
		return []finding{{warn, aboutServing, fmt.Sprintf("%d open needs have no module here: %s and %d more", len(needs), strings.Join(names, ", "), len(needs)-named),
			"add their modules, which `agentctl needs` names, and call `agentctl reload`; if they are for other machines, see why those do not serve them"}}
	}
	for _, n := range needs {
		f := split(warn, aboutServing, fmt.Sprintf("%q is not served: %s", n.Need.GetInstance(), n.Detail))
		f.What += near(n, modules)
		f.Cure = cmp.Or(f.Cure, "mend what it says")
		all = append(all, f)
	}
	return all
}

// near names the module that may be meant, if there is one.
func near(n *pb.NeedDecision, modules []string) string {
	if name := jsonfile.Nearest(n.Need.GetModule(), modules); name != "" {
		return fmt.Sprintf(" (is module %q meant?)", name)
	}
	return ""
}

// moduleNames are those of the files, or of the agent if these are not to be had.
func (a answer) moduleNames(catalogue *module.Catalogue) []string {
	if catalogue != nil {
		return catalogue.Names()
	}
	var names []string
	for _, m := range a.modules {
		names = append(names, m.Name)
	}
	return names
}

// starved are the instances that do not run because the agent has as many
// descriptors as it may have.
func (a answer) starved() (all []string) {
	for _, p := range a.processes {
		if starved(p) {
			all = append(all, p.Instance)
		}
	}
	return all
}

func starved(p *pb.Process) bool {
	// The API has words of a reason and no more.
	return p.GetPid() == 0 && p.GetFailures() > 0 && (strings.Contains(p.LastReason, process.LimitOfFiles) || strings.Contains(p.LastReason, syscall.EMFILE.Error()))
}
