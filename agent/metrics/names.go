package metrics

import "strings"

// The names of the counters, by what is counted.
var named = [counts]string{
	NeedSeen:       "machineagent_needs_seen_total",
	Bid:            "machineagent_bids_total",
	BidAccepted:    labelled(bidsEnded, "outcome", "accepted"),
	BidRejected:    labelled(bidsEnded, "outcome", "rejected"),
	BidUnreachable: labelled(bidsEnded, "outcome", "unreachable"),
	BidDestroyed:   labelled(bidsEnded, "outcome", "destroyed"),
	BidTimedOut:    labelled(bidsEnded, "outcome", "timed_out"),
	BidLost:        labelled(bidsEnded, "outcome", "lost"),
	BidWithheld:    labelled(bidsEnded, "outcome", "withheld"),
	BidTakenBack:   labelled(bidsEnded, "outcome", "taken_back"),
	Challenge:      "machineagent_challenges_total",
	Spawn:          labelled(spawns, "result", "started"),
	NotSpawned:     labelled(spawns, "result", "failed"),
	ProcessReady:   "machineagent_processes_ready_total",
	PortStolen:     "machineagent_ports_stolen_total",
	Adoption:       "machineagent_adoptions_total",
	EndStopped:     labelled(ends, "class", "stopped"),
	EndNotReady:    labelled(ends, "class", "not_ready"),
	EndUnwell:      labelled(ends, "class", "unwell"),
	EndExited:      labelled(ends, "class", "exited"),
	EndFailed:      labelled(ends, "class", "failed"),
	EndKilled:      labelled(ends, "class", "killed"),
	EndUnknown:     labelled(ends, "class", "unknown"),
	Backoff:        "machineagent_backoffs_total",
	CrashLoop:      "machineagent_crash_loops_total",
	DownReport:     "machineagent_down_reports_total",
	Session:        "machineagent_sessions_total",
	SessionFailed:  "machineagent_sessions_failed_total",
}

const (
	bidsEnded = "machineagent_bids_ended_total"
	spawns    = "machineagent_spawns_total"
	ends      = "machineagent_process_ends_total"

	stageSeconds       = "machineagent_stage_seconds"
	needSeconds        = "machineagent_need_seconds"
	replacementSeconds = "machineagent_replacement_seconds"

	agentInfo    = "machineagent_info"
	agentStart   = "machineagent_start_time_seconds"
	linkUp       = "machineagent_link_up"
	linkSince    = "machineagent_link_since_seconds"
	needsOpen    = "machineagent_needs_open"
	services     = "machineagent_services"
	servicesHere = "machineagent_services_here"
	held         = "machineagent_instances_held"
	waiting      = "machineagent_instances_in_backoff"
	looping      = "machineagent_instances_in_crash_loop"
	queued       = "machineagent_instances_queued"
	starting     = "machineagent_starts_under_way"
	bidsOut      = "machineagent_bids_out"
	processes    = "machineagent_processes"
	places       = "machineagent_processes_by_place"
	leases       = "machineagent_port_leases"
	connections  = "machineagent_api_connections"
	streams      = "machineagent_api_streams"
)

// Description tells what a metric means.
type Description struct {
	Name string
	Type string // counter, gauge or histogram
	Text string // in one sentence, in Markdown
}

// Descriptions are those of all metrics of this package, as docs/metrics.md has
// them.
func Descriptions() []Description {
	var all []Description
	add := func(kind string, namesAndTexts ...string) {
		for n := 0; n < len(namesAndTexts); n += 2 {
			name, _, _ := strings.Cut(namesAndTexts[n], "{")
			all = append(all, Description{name, kind, namesAndTexts[n+1]})
		}
	}
	add("counter",
		named[NeedSeen], "Open needs that the LAN manager told of. After each new session it tells of all again.",
		named[Bid], "Bids for a need.",
		bidsEnded, "Bids that have ended, by `outcome`: `accepted`: the service is ours; `rejected`: our address does not fit the need; `unreachable`: the LAN manager could connect to no port; `destroyed`: the need is gone or somebody else's; `timed_out`: no answer; `lost`: the session ended; `withheld`: a port of the process was another program's by then; `taken_back`: by the agent.",
		named[Challenge], "Bids that were challenged: the LAN manager wants the need served here.",
		spawns, "Tries to start a process, by `result`: `started` or `failed`.",
		named[ProcessReady], "Processes that became ready.",
		named[PortStolen], "Times that another program was seen on the port of a process that was not ready, or was to be offered.",
		named[Adoption], "Processes that were taken over from the agent before this one.",
		ends, "Processes that have ended, by `class`: `stopped`: an operator, or that nobody needs it here; `not_ready`: stopped, since it did not become ready or could not be reached; `unwell`: stopped, since it failed its health check or was reported down; by itself `exited` (code 0), `failed` (any other code), `killed` (by a signal that was not the agent's); `unknown`: nobody saw how.",
		named[Backoff], "Ends and failed starts after which the instance had to wait for its next start.",
		named[CrashLoop], "Times that an instance got into a crash loop.",
		named[DownReport], "Services that were reported down to the LAN manager.",
		named[Session], "Sessions with a LAN manager.",
		named[SessionFailed], "Sessions that ended, and tries to begin one that failed.",
	)
	add("histogram",
		stageSeconds, "The road from a need to a service, by `stage`, each from the end of the stage before: `bid`: from when the need was seen, or from the failure before, to our bid; `challenge`: to the word that it is ours; `start`: until its process runs; `ready`: until that is ready; `serve`: until the LAN manager has tried its ports and accepted.",
		needSeconds, "The whole road: from when the need was seen to when its service was accepted, for needs that are served here.",
		replacementSeconds, "From the end of a process that was served to when the process in its place was.",
	)
	add("gauge",
		agentInfo, "1; `version` is that of the agent.",
		agentStart, "When the agent started, in seconds since 1970.",
		linkUp, "1 while there is a session with a LAN manager.",
		linkSince, "Since when there is, or is not, in seconds since 1970.",
		needsOpen, "Open needs of the LAN.",
		services, "Services of the LAN.",
		servicesHere, "Services of the LAN that are served here.",
		held, "Instances that an operator holds on this machine.",
		waiting, "Instances that wait for their next start after an end or a failed start.",
		looping, "Instances in a crash loop, as in `agentctl ps`.",
		queued, "Instances that wait for a place or for one of the starts under way to end.",
		starting, "Starts under way.",
		bidsOut, "Bids that have not ended.",
		processes, "Processes, outside ones included, by `state`, as in `agentctl ps`.",
		places, "Live processes by `place`: `served`: the LAN's record is ours; `open`: the need is open; `elsewhere`: another machine serves it; `unneeded`: there is neither need nor record.",
		leases, "Leased ports, by the `state` of the lease, as in `agentctl ports`.",
		connections, "Connections to the agent's API.",
		streams, "Calls of the API that last, such as watches.",
	)
	return all
}
