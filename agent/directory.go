package agent

import (
	"context"
	"fmt"

	"github.com/allexgo/machine-agent/lan/table"
)

// ServiceOf is the LAN's record of the service of an instance. Errors: NotFound.
func (a *Agent) ServiceOf(ctx context.Context, instance string) (Service, error) {
	return ask(ctx, a, func(l *loop) (Service, error) {
		if i := l.instances[instance]; i != nil && i.service != nil {
			return l.serviceOf(i), nil
		}
		return Service{}, &Error{Kind: NotFound, Reason: ServiceNotFound,
			Message:  fmt.Sprintf("the LAN has no service of instance %q now; `agentctl needs` says why it is not served, if it is needed", instance),
			Metadata: map[string]string{"instance": instance}}
	})
}

// Resolve is where a place in the LAN is reached from outside, by the LAN
// manager's table of translated addresses; false and the place itself if that has
// nothing on it. Errors: Unavailable.
func (a *Agent) Resolve(ctx context.Context, address string, port int) (string, int, bool, error) {
	all, err := a.link.NAT(ctx)
	if err != nil {
		return "", 0, false, lanError(err)
	}
	to, toPort, translated := translate(all, address, port)
	return to, toPort, translated, nil
}

// translate looks a place up (lan/PROTOCOL.md section 6.1).
func translate(all []table.NAT, address string, port int) (string, int, bool) {
	for _, n := range all {
		if n.IAddress != address || port < n.IPort.From || port > n.IPort.To || n.EAddress == "" {
			continue
		}
		if n.EPort != 0 {
			port = n.EPort
		}
		return n.EAddress, port, true
	}
	return address, port, false
}
