//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/e2e/lab"
	machineagentv1 "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// benchPorts measures the port office beside the ports of n instances, and how
// long an agent with n children takes to tell whose all of their ports are.
func benchPorts(ctx context.Context, bin string, n int) error {
	dir, err := os.MkdirTemp("", "machine-agent-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	child, err := compile(ctx, dir)
	if err != nil {
		return err
	}
	var rows []row
	for _, mode := range []port.Mode{port.Reserved, port.Passed} {
		took, err := leases(n, mode)
		if err != nil {
			return err
		}
		rows = append(rows, row{fmt.Sprintf("lease and release of 3 %s ports, %d held", mode, 3*n),
			fmt.Sprintf("%.1f us", float64(took.Nanoseconds())/1000), "-", "-", "-", 0})
	}
	var took []time.Duration
	var cpu time.Duration
	b := &run{bin: bin, dir: dir, child: child, n: n}
	err = b.during(ctx, []string{"tcp", "http", "ws"}, func(*lab.Lab) error {
		took, cpu, err = b.ownership(ctx)
		return err
	})
	if err != nil {
		return err
	}
	whose := fmt.Sprintf("whose are the ports of %d children, 3 each", n)
	print(append(rows, row{whose, quantiles(took), "-", "-", "-", 0},
		row{whose + ": processor time", fmt.Sprintf("%.1f ms", cpu.Seconds()*1000), "-", "-", "-", 0}))
	return nil
}

// leases measures one lease and release of three ports while n instances have
// theirs.
func leases(n int, mode port.Mode) (time.Duration, error) {
	const first = 20000
	size := n + n/8 + 8 // some may be taken
	o := port.NewOffice(port.Range{Start: first, Size: size}, port.Range{Start: first + size, Size: size}, port.Range{Start: first + 2*size, Size: size}, 0)
	defer o.Close()
	request := port.Request{Protocols: []port.Protocol{port.TCP, port.HTTP, port.WS}, Mode: mode}
	for i := range n {
		request.Instance = fmt.Sprint(i)
		if _, err := o.Lease(request); err != nil {
			return 0, err
		}
	}
	const times = 1000
	request.Instance = "one more"
	began := time.Now()
	for range times {
		if _, err := o.Lease(request); err != nil {
			return 0, err
		}
		o.Release(request.Instance)
	}
	return time.Since(began) / times, nil
}

// ownership measures how long ListPorts takes with n children that listen on three
// ports each, and how much of the agent's processor time.
func (b *run) ownership(ctx context.Context) (took []time.Duration, cpu time.Duration, err error) {
	const times = 50
	before := b.program().cpu()
	for range times {
		began := time.Now()
		answer, err := b.agent.Client.Ports.ListPorts(ctx, &machineagentv1.ListPortsRequest{PageSize: 1}) // it looks at all
		if err != nil {
			return nil, 0, err
		}
		took = append(took, time.Since(began))
		if l := answer.GetLeases()[0]; l.GetListener() != machineagentv1.PortListener_PORT_LISTENER_OURS {
			return nil, 0, fmt.Errorf("the port of a child is not its own: %v", l)
		}
	}
	return took, (b.program().cpu() - before) / times, nil
}
