package main

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/allexgo/machine-agent/agent"
)

// statusPeriod is how often the service manager hears how things are, if it has
// not asked for more.
const statusPeriod = 10 * time.Second

// tell sends the service manager states of sd_notify(3), if there is one that
// listens. That it can not be reached it notices itself. NOTIFY_SOCKET stays in our
// environment for the agentd that takes over from us; children get one of their own.
func tell(state string) { _, _ = daemon.SdNotify(false, state) }

// announce tells the service manager that the agent is there, whose loop has answered
// with st, which it does when everything has been adopted; and after that, that it is
// alive for as long as the loop goes on answering: one that is stuck is killed and
// started anew, and its children are none the worse for it.
func announce(ctx context.Context, a *agent.Agent, st agent.Status) {
	period := statusPeriod
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err == nil && watchdog > 0 {
		period = min(period, watchdog/3)
	}
	tell(daemon.SdNotifyReady + "\n" + sentence(st))
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if st, err := a.Pulse(ctx); err == nil {
			tell(daemon.SdNotifyWatchdog + "\n" + sentence(st))
		}
	}
}

// sentence is the status as systemctl shows it.
func sentence(st agent.Status) string {
	lan := "no LAN manager: " + st.Link.Problem
	if st.Link.Connected {
		lan = "LAN manager " + st.Link.LANManager
	}
	return fmt.Sprintf("STATUS=processes: %d, services: %d; %s", st.Processes, st.ServedHere, lan)
}
