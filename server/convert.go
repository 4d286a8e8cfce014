package server

import (
	"bytes"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/allexgo/machine-agent/agent"
	"github.com/allexgo/machine-agent/agent/port"
	"github.com/allexgo/machine-agent/agent/process"
	"github.com/allexgo/machine-agent/lan/table"
	pb "github.com/allexgo/machine-agent/proto/machineagent/v1"
)

// The enumerations of the agent and of the API, value by value: either may be
// renumbered without the other. What is missing here is ..._UNSPECIFIED.
var (
	states = map[process.State]pb.ProcessState{
		process.Starting:  pb.ProcessState_PROCESS_STATE_STARTING,
		process.Ready:     pb.ProcessState_PROCESS_STATE_READY,
		process.Withdrawn: pb.ProcessState_PROCESS_STATE_WITHDRAWN,
		process.Stopping:  pb.ProcessState_PROCESS_STATE_STOPPING,
		process.Emptying:  pb.ProcessState_PROCESS_STATE_EMPTYING,
		process.Ended:     pb.ProcessState_PROCESS_STATE_ENDED,
	}
	places = map[agent.Place]pb.ProcessPlace{
		agent.PlaceServed:    pb.ProcessPlace_PROCESS_PLACE_SERVED,
		agent.PlaceOpen:      pb.ProcessPlace_PROCESS_PLACE_OPEN,
		agent.PlaceElsewhere: pb.ProcessPlace_PROCESS_PLACE_ELSEWHERE,
		agent.PlaceUnneeded:  pb.ProcessPlace_PROCESS_PLACE_UNNEEDED,
	}
	origins = map[agent.Origin]pb.ProcessOrigin{
		agent.Started: pb.ProcessOrigin_PROCESS_ORIGIN_STARTED,
		agent.Adopted: pb.ProcessOrigin_PROCESS_ORIGIN_ADOPTED,
		agent.Outside: pb.ProcessOrigin_PROCESS_ORIGIN_OUTSIDE,
	}
	lanManagers = map[agent.LANManagerKind]pb.LanManagerKind{
		agent.OfThisProject: pb.LanManagerKind_LAN_MANAGER_KIND_OURS,
		agent.Original:      pb.LanManagerKind_LAN_MANAGER_KIND_ORIGINAL,
	}
	protocols = map[port.Protocol]pb.Protocol{
		port.TCP:  pb.Protocol_PROTOCOL_TCP,
		port.HTTP: pb.Protocol_PROTOCOL_HTTP,
		port.WS:   pb.Protocol_PROTOCOL_WS,
	}
	portStates = map[port.State]pb.PortState{
		port.StateReserved:    pb.PortState_PORT_STATE_RESERVED,
		port.StateListening:   pb.PortState_PORT_STATE_LISTENING,
		port.StateAdopted:     pb.PortState_PORT_STATE_ADOPTED,
		port.StateOutside:     pb.PortState_PORT_STATE_OUTSIDE,
		port.StateQuarantined: pb.PortState_PORT_STATE_QUARANTINED,
		port.StateKept:        pb.PortState_PORT_STATE_KEPT,
	}
	portListeners = map[agent.Listener]pb.PortListener{
		agent.ListenerNobody:   pb.PortListener_PORT_LISTENER_NOBODY,
		agent.ListenerOurs:     pb.PortListener_PORT_LISTENER_OURS,
		agent.ListenerStranger: pb.PortListener_PORT_LISTENER_STRANGER,
		agent.ListenerUnknown:  pb.PortListener_PORT_LISTENER_UNKNOWN,
	}
	eventKinds = map[agent.EventKind]pb.EventKind{
		agent.LinkUp:            pb.EventKind_EVENT_KIND_LINK_UP,
		agent.LinkDown:          pb.EventKind_EVENT_KIND_LINK_DOWN,
		agent.NeedOpened:        pb.EventKind_EVENT_KIND_NEED_OPENED,
		agent.NeedClosed:        pb.EventKind_EVENT_KIND_NEED_CLOSED,
		agent.NeedDecided:       pb.EventKind_EVENT_KIND_NEED_DECIDED,
		agent.ServiceSet:        pb.EventKind_EVENT_KIND_SERVICE_SET,
		agent.ServiceGone:       pb.EventKind_EVENT_KIND_SERVICE_GONE,
		agent.ProcessStarted:    pb.EventKind_EVENT_KIND_PROCESS_STARTED,
		agent.ProcessNotStarted: pb.EventKind_EVENT_KIND_PROCESS_NOT_STARTED,
		agent.ProcessAdopted:    pb.EventKind_EVENT_KIND_PROCESS_ADOPTED,
		agent.ProcessRegistered: pb.EventKind_EVENT_KIND_PROCESS_REGISTERED,
		agent.ProcessReady:      pb.EventKind_EVENT_KIND_PROCESS_READY,
		agent.ProcessWithdrawn:  pb.EventKind_EVENT_KIND_PROCESS_WITHDRAWN,
		agent.ProcessStopping:   pb.EventKind_EVENT_KIND_PROCESS_STOPPING,
		agent.ProcessEnded:      pb.EventKind_EVENT_KIND_PROCESS_ENDED,
		agent.ReportedDown:      pb.EventKind_EVENT_KIND_REPORTED_DOWN,
		agent.InstanceHold:      pb.EventKind_EVENT_KIND_HELD,
		agent.InstanceLetGo:     pb.EventKind_EVENT_KIND_LET_GO,
		agent.Drained:           pb.EventKind_EVENT_KIND_DRAINED,
		agent.Resumed:           pb.EventKind_EVENT_KIND_RESUMED,
		agent.Reloaded:          pb.EventKind_EVENT_KIND_RELOADED,
	}
	decisions = map[agent.Decision]pb.Decision{
		agent.DecisionBid:             pb.Decision_DECISION_BID,
		agent.DecisionStarting:        pb.Decision_DECISION_STARTING,
		agent.DecisionServedHere:      pb.Decision_DECISION_SERVED_HERE,
		agent.DecisionDrained:         pb.Decision_DECISION_DRAINED,
		agent.DecisionHeld:            pb.Decision_DECISION_HELD,
		agent.DecisionCapacity:        pb.Decision_DECISION_CAPACITY,
		agent.DecisionAddress:         pb.Decision_DECISION_ADDRESS,
		agent.DecisionNotCatalogued:   pb.Decision_DECISION_NOT_CATALOGUED,
		agent.DecisionPortTaken:       pb.Decision_DECISION_PORT_TAKEN,
		agent.DecisionBackoff:         pb.Decision_DECISION_BACKOFF,
		agent.DecisionBidPending:      pb.Decision_DECISION_BID_PENDING,
		agent.DecisionServedElsewhere: pb.Decision_DECISION_SERVED_ELSEWHERE,
	}
)

func processMessage(p agent.Process) *pb.Process {
	return &pb.Process{
		Instance:     p.Instance,
		Module:       p.Module,
		State:        states[p.State],
		Place:        places[p.Place],
		Origin:       origins[p.Origin],
		Pid:          int32(p.PID),
		StartTime:    timeMessage(p.StartTime),
		Ports:        portsMessage(p.Ports),
		StatusText:   p.StatusText,
		Held:         p.Held,
		Failures:     int32(p.Failures),
		BackoffUntil: timeMessage(p.BackoffUntil),
		LastExit:     exitMessage(p.LastExit),
		LastReason:   p.LastReason,
		LogFile:      p.LogFile,
		CrashLoop:    p.CrashLoop,
		FailingSince: timeMessage(p.FailingSince),
		Outdated:     p.Outdated,
		Reason:       p.Reason,
	}
}

func usageMessage(u process.Usage) *pb.ProcessUsage {
	return &pb.ProcessUsage{
		CpuTime:     durationpb.New(u.CPU),
		MemoryBytes: int64(u.Memory),
		Descriptors: int32(u.Descriptors),
		Threads:     int32(u.Threads),
		Processes:   int32(u.Processes),
	}
}

// timeMessage is nil for the zero time.
func timeMessage(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// portsMessage is nil if there is no port.
func portsMessage(p table.Ports) *pb.Ports {
	if !p.Any() {
		return nil
	}
	return &pb.Ports{Tcp: int32(p.TCP), Http: int32(p.HTTP), Ws: int32(p.WS)}
}

func portsOf(p *pb.Ports) table.Ports {
	return table.Ports{TCP: int(p.GetTcp()), HTTP: int(p.GetHttp()), WS: int(p.GetWs())}
}

// exitMessage is nil for nil.
func exitMessage(e *process.Exit) *pb.ExitStatus {
	switch {
	case e == nil:
		return nil
	case e.Unknown:
		return &pb.ExitStatus{Status: &pb.ExitStatus_Unknown{Unknown: true}}
	case e.Signal != "":
		return &pb.ExitStatus{Status: &pb.ExitStatus_Signal{Signal: e.Signal}}
	}
	return &pb.ExitStatus{Status: &pb.ExitStatus_Code{Code: int32(e.Code)}}
}

func leaseMessage(l agent.PortLease) *pb.PortLease {
	return &pb.PortLease{
		Protocol: protocols[l.Protocol],
		Port:     int32(l.Port),
		Instance: l.Instance,
		Pid:      int32(l.PID),
		State:    portStates[l.State],
		Listener: portListeners[l.Listener],
		Detail:   l.Detail,
	}
}

// decisionMessage leaves the property hash out unless private things may be shown.
func decisionMessage(d agent.NeedDecision, private bool) *pb.NeedDecision {
	n := &pb.Need{
		Instance:   d.Need.InstanceName,
		Module:     d.Need.ModuleName,
		FixedPorts: portsMessage(d.Need.Ports),
		IpAddress:  d.Need.IPAddress,
	}
	if private {
		n.PropertyHash = structMessage(d.Need.PropertyHash)
	}
	return &pb.NeedDecision{
		Need:      n,
		Decision:  decisions[d.Decision],
		Detail:    d.Detail,
		ServedAt:  d.ServedAt,
		RetryTime: timeMessage(d.Retry),
	}
}

// structMessage is nil for what is no JSON object: what comes from the LAN may
// be anything.
func structMessage(raw json.RawMessage) *structpb.Struct {
	if len(raw) == 0 || raw[0] != '{' {
		return nil
	}
	s := new(structpb.Struct)
	if err := protojson.Unmarshal(raw, s); err != nil {
		return nil
	}
	return s
}

// needOf is the need that AddNeed passes on; n has been checked.
func needOf(n *pb.Need) (table.Need, error) {
	need := table.Need{
		InstanceName: n.GetInstance(),
		ModuleName:   n.GetModule(),
		Ports:        portsOf(n.GetFixedPorts()),
		IPAddress:    n.GetIpAddress(),
	}
	if n.GetPropertyHash() == nil {
		return need, nil
	}
	text, err := protojson.Marshal(n.GetPropertyHash())
	if err != nil {
		return need, err
	}
	var compact bytes.Buffer // protojson puts in spaces at random
	err = json.Compact(&compact, text)
	need.PropertyHash = compact.Bytes()
	return need, err
}

func statusMessage(s agent.Status) *pb.GetStatusResponse {
	var upgrade *pb.LastUpgrade
	if u := s.Upgrade; u.ID != "" {
		upgrade = &pb.LastUpgrade{Id: u.ID, FromVersion: u.From, Time: timeMessage(u.Time), Problem: u.Problem}
	}
	return &pb.GetStatusResponse{
		LastUpgrade: upgrade,
		Version:     s.Version,
		Name:        s.Name,
		Pid:         int32(s.PID),
		StartTime:   timeMessage(s.StartTime),
		Link: &pb.Link{
			Connected:  s.Link.Connected,
			LanManager: s.Link.LANManager,
			SeenAs:     s.Link.SeenAs,
			SinceTime:  timeMessage(s.Link.Since),
			Problem:    s.Link.Problem,
			Kind:       lanManagers[s.Link.Kind],
		},
		Processes:    int32(s.Processes),
		MaxProcesses: int32(s.MaxProcesses),
		OpenNeeds:    int32(s.OpenNeeds),
		Services:     int32(s.Services),
		ServedHere:   int32(s.ServedHere),
		Cgroups:      s.Cgroups,
		Drained:      s.Drained,
		Warnings:     s.Warnings,
		Directory:    s.Directory,

		CrashLoops: s.CrashLoops, CrashLoopCount: int32(s.Looping),
	}
}
