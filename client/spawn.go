package client

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
)

// Protocol is one of the three for which a process may have a port.
type Protocol string

// The protocols.
const (
	TCP  Protocol = "tcp"
	HTTP Protocol = "http"
	WS   Protocol = "ws"
)

// Ports are those of a process, one for each protocol; 0 means none.
type Ports struct{ TCP, HTTP, WS int }

// of is where the port of a protocol is kept; nil if there is no such protocol.
func (p *Ports) of(protocol Protocol) *int {
	switch protocol {
	case TCP:
		return &p.TCP
	case HTTP:
		return &p.HTTP
	case WS:
		return &p.WS
	}
	return nil
}

// Spawn is what an agent started a process for, as it told it through the
// environment (design section 6). Outside of an agent all of it is empty but for
// what somebody set by hand.
type Spawn struct {
	// Instance is the name under which the process runs (MACHINEAGENT_INSTANCE).
	Instance string
	// Module is what the need asked for, without a prefix such as "dotnet:".
	Module string
	// PropertyHash are the properties of the need, as JSON; see Properties.
	PropertyHash json.RawMessage
	// Ports are those that the process was given (TCP_PORT, HTTP_PORT or PORT,
	// WS_PORT).
	Ports Ports
	// RuntimeDirectory is that of the agent (ALLEX_RUNTIMEDIRECTORY).
	RuntimeDirectory string
	// Record is all of ALLEX_SPAWN.
	Record json.RawMessage
}

// ReadSpawn reads the environment of this process. The error names the variable
// that is wrong.
func ReadSpawn() (Spawn, error) {
	s := Spawn{
		Instance:         os.Getenv("MACHINEAGENT_INSTANCE"),
		RuntimeDirectory: os.Getenv("ALLEX_RUNTIMEDIRECTORY"),
	}
	if text := os.Getenv("ALLEX_SPAWN"); text != "" {
		var record struct {
			ModuleName   string          `json:"modulename"`
			PropertyHash json.RawMessage `json:"propertyhash"`
		}
		if err := json.Unmarshal([]byte(text), &record); err != nil {
			return Spawn{}, fmt.Errorf("ALLEX_SPAWN is not the record of a spawn: %w", err)
		}
		s.Module, s.PropertyHash, s.Record = record.ModuleName, record.PropertyHash, json.RawMessage(text)
	}
	for _, variable := range []struct {
		port *int
		name string
	}{{&s.Ports.TCP, "TCP_PORT"}, {&s.Ports.HTTP, "HTTP_PORT"}, {&s.Ports.HTTP, "PORT"}, {&s.Ports.WS, "WS_PORT"}} {
		text := os.Getenv(variable.name)
		if text == "" || *variable.port != 0 {
			continue
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return Spawn{}, fmt.Errorf("%s is %q, which is no port", variable.name, text)
		}
		*variable.port = int(port)
	}
	return s, nil
}

// Properties decodes the need's properties into v, as json.Unmarshal does. Where
// there are none, v stays as it is.
func (s Spawn) Properties(v any) error {
	if len(s.PropertyHash) == 0 {
		return nil
	}
	if err := json.Unmarshal(s.PropertyHash, v); err != nil {
		return fmt.Errorf("the property hash of instance %q is not as it should be: %w", cmp.Or(s.Instance, "?"), err)
	}
	return nil
}
