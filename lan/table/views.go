package table

import (
	"encoding/json"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// Views never fail: a value of the wrong type is as good as none, so that one
// odd record does not cost the table. Raw values are those of the record and
// must not be changed; null is nil.

// Ports are the ports of one instance; 0 is none.
type Ports struct {
	TCP  int `json:"tcp,omitempty"`
	HTTP int `json:"http,omitempty"`
	WS   int `json:"ws,omitempty"`
}

// Any says whether there is a port at all.
func (p Ports) Any() bool { return p != Ports{} }

// Need is a service instance that must run (PROTOCOL section 6.1).
type Need struct {
	InstanceName string
	ModuleName   string
	PropertyHash json.RawMessage // handed to the service
	Strategies   json.RawMessage // how the service authenticates its callers
	IPAddress    string          // of an open need: address or CIDR of the machine that may serve it
	Ports        Ports           // of an open need: the fixed ports that it wants
	PID          int             // of the process that serves it
	Closed       bool
	Timeout      int // seconds
	// Rest has tcpoptions, httpoptions, wsoptions, debug, debug_brk, prof and
	// gate where they are not null. They are handed on.
	Rest map[string]json.RawMessage
}

// ParseNeed reads a record of Needs.
func ParseNeed(r Record) Need {
	return Need{
		InstanceName: r.Text("instancename"),
		ModuleName:   r.Text("modulename"),
		PropertyHash: raw(r, "propertyhash"),
		Strategies:   raw(r, "strategies"),
		IPAddress:    r.Text("ipaddress"),
		Ports:        ports(r),
		PID:          max(0, r.Int("pid")),
		Closed:       string(r.Get("closed")) == "true",
		Timeout:      max(0, r.Int("timeout")),
		Rest:         rest(r),
	}
}

// Satisfied says whether a process serves the need: it has a pid, an address
// and at least one port.
func (n Need) Satisfied() bool { return n.PID != 0 && n.IPAddress != "" && n.Ports.Any() }

// MarshalJSON makes the argument of addNeed: what is set, under the names of
// the schema.
func (n Need) MarshalJSON() ([]byte, error) {
	members := map[string]any{"instancename": n.InstanceName, "modulename": n.ModuleName}
	for name, value := range map[string]int{
		"tcpport": n.Ports.TCP, "httpport": n.Ports.HTTP, "wsport": n.Ports.WS,
		"pid": n.PID, "timeout": n.Timeout,
	} {
		if value != 0 {
			members[name] = value
		}
	}
	for name, value := range map[string]json.RawMessage{"propertyhash": n.PropertyHash, "strategies": n.Strategies} {
		if value != nil {
			members[name] = value
		}
	}
	for name, value := range n.Rest {
		members[name] = value
	}
	if n.IPAddress != "" {
		members["ipaddress"] = n.IPAddress
	}
	if n.Closed {
		members["closed"] = true
	}
	return json.Marshal(members)
}

// satisfied is Need.Satisfied without making the Need.
func satisfied(r Record) bool {
	return r.Int("pid") > 0 && r.Text("ipaddress") != "" && ports(r).Any()
}

// Service is a need that is served. It has no pid.
type Service struct {
	InstanceName string
	ModuleName   string
	PropertyHash json.RawMessage
	Strategies   json.RawMessage
	IPAddress    string // of the machine that serves it
	Ports        Ports
	Rest         map[string]json.RawMessage // as that of a Need
}

// ParseService reads a record of Services.
func ParseService(r Record) Service {
	return Service{
		InstanceName: r.Text("instancename"),
		ModuleName:   r.Text("modulename"),
		PropertyHash: raw(r, "propertyhash"),
		Strategies:   raw(r, "strategies"),
		IPAddress:    r.Text("ipaddress"),
		Ports:        ports(r),
		Rest:         rest(r),
	}
}

// PortRange is one port (From equals To) or several.
type PortRange struct{ From, To int }

// NAT says under which address and port an inner address is reached from
// outside.
type NAT struct {
	IAddress string
	IPort    PortRange
	EAddress string
	EPort    int // 0 where IPort is a range: the same port
}

// ParseNAT reads a record of NATs.
func ParseNAT(r Record) NAT {
	return NAT{
		IAddress: r.Text("iaddress"),
		IPort:    portRange(r.Get("iport")),
		EAddress: r.Text("eaddress"),
		EPort:    port(r.Get("eport")),
	}
}

func portRange(value json.RawMessage) PortRange {
	both, err := rawjson.Elements(value, maxDepth, nil)
	switch {
	case err != nil:
		return PortRange{From: port(value), To: port(value)}
	case len(both) != 2:
		return PortRange{}
	}
	return PortRange{From: port(both[0]), To: port(both[1])}
}

func ports(r Record) Ports {
	return Ports{TCP: port(r.Get("tcpport")), HTTP: port(r.Get("httpport")), WS: port(r.Get("wsport"))}
}

// port reads a number; the original ignores ports that are strings.
func port(value json.RawMessage) int {
	n, _ := rawjson.Int(value)
	if n < 0 || n > 65535 {
		return 0
	}
	return n
}

func raw(r Record, field string) json.RawMessage {
	if value := r.Get(field); !rawjson.IsNull(value) {
		return value
	}
	return nil
}

func rest(r Record) map[string]json.RawMessage {
	var values map[string]json.RawMessage
	for _, field := range [...]string{"tcpoptions", "httpoptions", "wsoptions", "debug", "debug_brk", "prof", "gate"} {
		value := raw(r, field)
		if value == nil {
			continue
		}
		if values == nil {
			values = make(map[string]json.RawMessage)
		}
		values[field] = value
	}
	return values
}
