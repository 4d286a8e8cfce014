package lanmanager

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// answer is what a response says. What is of the wrong kind counts as absent.
type answer struct {
	address string
	pid     json.RawMessage // nil: none
	ports   ports
	options fields
}

var (
	portFields   = []string{"tcpport", "httpport", "wsport"} // in the order of the check
	optionFields = []string{"tcpoptions", "httpoptions", "wsoptions"}
)

// ports are those of portFields; 0 is none.
type ports [3]int

func (p ports) given() []int { return slices.DeleteFunc(p[:], func(n int) bool { return n == 0 }) }

func (p ports) String() string {
	var texts []string
	for i, n := range p {
		if n != 0 {
			texts = append(texts, portFields[i]+" "+strconv.Itoa(n))
		}
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

func newAnswer(response fields, peer string) answer {
	a := answer{address: response.textOr("ipaddress", peer), options: response}
	for i, field := range portFields {
		a.ports[i] = response.port(field)
	}
	if pid := response["pid"]; len(pid) > 0 && (pid[0] == '-' || '0' <= pid[0] && pid[0] <= '9') {
		a.pid = pid
	}
	return a
}

// served is what the winner's response sets in the record of the need, so that
// who watches the needs knows who won with which ports.
func (a answer) served() json.RawMessage {
	set := a.fields()
	set["pid"] = a.pid
	return marshal(set)
}

// service is what it sets in the record of the service.
func (a answer) service(created time.Time) json.RawMessage {
	set := a.fields()
	set["created"] = created.UnixMilli()
	return marshal(set)
}

func (a answer) fields() map[string]any {
	set := map[string]any{"ipaddress": a.address}
	for i, field := range portFields {
		set[field] = nil // explicitly: an absent port would be 0
		if a.ports[i] != 0 {
			set[field] = a.ports[i]
		}
	}
	for _, field := range optionFields {
		set[field] = a.options[field]
	}
	return set
}
