package agent

import (
	"context"

	"github.com/allexgo/machine-agent/agent/process"
)

// Usage measures what the processes of these instances use, for one caller at a
// time. Instances without a process, and those of which the system tells nothing, are
// left out.
func (a *Agent) Usage(ctx context.Context, instances []string) (map[string]process.Usage, error) {
	done, err := a.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	live, err := ask(ctx, a, func(l *loop) (map[string]*process.Process, error) {
		live := make(map[string]*process.Process, len(instances))
		for _, name := range instances {
			if i := l.instances[name]; i != nil && i.child != nil && i.child.process != nil {
				live[name] = i.child.process
			}
		}
		return live, nil
	})
	if err != nil {
		return nil, err
	}
	all := make(map[string]process.Usage, len(live))
	var sampler process.Sampler
	for name, p := range live {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if u, err := sampler.Usage(p); err == nil {
			all[name] = u
		}
	}
	return all, nil
}
