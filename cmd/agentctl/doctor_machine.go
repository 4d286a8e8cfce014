package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/allexgo/machine-agent/agent/config"
	"github.com/allexgo/machine-agent/agent/link"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/agent/state"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// tryLANManager tells whether one is where the configuration says.
func tryLANManager(ctx context.Context, cfg config.Config) finding {
	l := link.New(link.Config{LocalIP: config.LocalIP(cfg.Address), Secrets: cfg.LANManager.Secrets})
	var failed []error
	for _, address := range cfg.LANManager.Addresses() {
		err := l.Try(ctx, address)
		if err == nil {
			return finding{good, aboutLANManager, "somebody takes connections at " + address, ""}
		}
		failed = append(failed, err)
	}
	f := split(fail, aboutLANManager, link.Nowhere(failed).Error())
	f.Cure = cmp.Or(f.Cure, lanManagerCure)
	return f
}

// strangersNamed are named; of more there is only the number.
const strangersNamed = 5

// ports are the ranges of the configuration, and who else uses them. Without an
// agent its records tell which ports are those of its processes.
func ports(a answer, f files) []finding {
	all := a.strangers()
	if f.found {
		for _, text := range port.Check(f.config.PortRanges[:]...) {
			all = append(all, split(warn, aboutPorts, text))
		}
		leases, known := a.leases, a.status != nil
		if !known {
			leases, known = recorded(f.config.StateDirectory)
		}
		if listening, err := process.Listeners(0); known && err == nil {
			all = append(all, strangersIn(f.config.PortRanges[:], leases, listening)...)
		}
	}
	if len(all) > 0 || !f.found && a.status == nil {
		return all
	}
	what := "those of our processes are theirs"
	if f.found {
		var ranges []string
		for _, r := range f.config.PortRanges {
			ranges = append(ranges, r.String())
		}
		what = strings.Join(ranges, ", ")
	}
	return []finding{{good, aboutPorts, what, ""}}
}

// recorded are the ports of processes that an agent has left; false if its records
// can not be read.
func recorded(stateDirectory string) (leases []*machineagentv1.PortLease, known bool) {
	records, err := state.Recorded(stateDirectory)
	for _, r := range records {
		for _, n := range []int{r.Ports.TCP, r.Ports.HTTP, r.Ports.WS} {
			leases = append(leases, &machineagentv1.PortLease{Port: int32(n)})
		}
	}
	return leases, err == nil
}

// strangersIn warns of programs that listen in a range on ports that are leased to
// nobody.
func strangersIn(ranges []port.Range, leases []*machineagentv1.PortLease, listening []process.Listener) (all []finding) {
	for _, r := range ranges {
		var taken []int
		for _, l := range listening {
			n := int(l.Address.Port())
			ours := slices.ContainsFunc(leases, func(lease *machineagentv1.PortLease) bool { return int(lease.Port) == n })
			if n >= r.Start && n-r.Start < r.Size && !ours && !slices.Contains(taken, n) {
				taken = append(taken, n)
			}
		}
		if len(taken) == 0 {
			continue
		}
		slices.Sort(taken)
		named := strings.Trim(fmt.Sprint(taken[:min(len(taken), strangersNamed)]), "[]")
		if more := len(taken) - strangersNamed; more > 0 {
			named += fmt.Sprintf(" and %d more", more)
		}
		all = append(all, finding{warn, aboutPorts, fmt.Sprintf("other programs listen in the range %s: on %s", r, named),
			fmt.Sprintf("no service gets these ports; if that is too many, see `ss -ltnp` and move those programs or portrangestart.%s", r.Protocol)})
	}
	return all
}

// A child costs the agent these descriptors: its ports, and itself. The agent has
// some of its own, and callers have theirs.
const (
	childDescriptors = 4
	agentDescriptors = 64
)

// limits tells whether the agent can have as many descriptors as it may need.
func limits(a answer, f files) finding {
	s := a.status
	if all := a.starved(); len(all) > 0 {
		return starvation(all, int(s.Pid))
	}
	most, why := int(s.MaxProcesses), "maxprocesses"
	switch {
	case most == 0 && f.found:
		most, why = f.config.PortRanges[0].Size, "portrangesize"
	case most == 0:
		most, why = int(s.Processes), "those that there are"
	}
	return descriptors(most, why, int(s.Pid))
}

// starvation tells that the agent has reached its limit.
func starvation(instances []string, pid int) finding {
	what := "the agent has as many descriptors as it may have"
	if limit, err := descriptorLimit(pid); err == nil {
		what += fmt.Sprintf(", which is %d", limit)
	}
	return finding{fail, aboutLimits, fmt.Sprintf("%s, and so it can not start %s: %s", what, plural(int32(len(instances)), "instance", "instances"), some(instances, len(instances))), limitCure}
}

const limitCure = "raise its limit (systemd: LimitNOFILE=, a shell: ulimit -n)"

func descriptors(most int, why string, pid int) finding {
	limit, err := descriptorLimit(pid)
	if errors.Is(err, errors.ErrUnsupported) {
		return finding{good, aboutLimits, "this system does not tell that of the agent's descriptors", ""}
	} else if err != nil {
		return finding{warn, aboutLimits, fmt.Sprintf("that of the agent's descriptors is not known: %v", err), "ask as root or as the agent's user"}
	}
	need := uint64(agentDescriptors + childDescriptors*most)
	what := fmt.Sprintf("the agent may have %d descriptors; %d processes (%s) need %d", limit, most, why, need)
	if limit < need {
		return finding{warn, aboutLimits, what, limitCure + ", or lower " + why}
	}
	return finding{good, aboutLimits, what, ""}
}
