package page

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// kinds are the tables, in the order of their tabs. They do not change.
var kinds = []*kind{needs, services, machines, nat, events}

// servedNeed is a need, and the service that it has become.
type servedNeed struct {
	*Need
	By *Service `json:"service,omitempty"` // nil if nobody serves it
}

var needs = newKind(kind{
	name: "needs", title: "Needs", noun: "need", nouns: "needs", order: "state",
	none: "Nothing is needed. Write needs into the file .allexlanmanager/needs: they are taken up at once.",
},
	func(s *Snapshot) []servedNeed {
		services := make(map[string]*Service, len(s.Services))
		for i := range s.Services {
			services[s.Services[i].Instance] = &s.Services[i]
		}
		all := make([]servedNeed, len(s.Needs))
		for i := range s.Needs {
			all[i] = servedNeed{&s.Needs[i], services[s.Needs[i].Instance]}
		}
		return all
	},
	column[servedNeed]{head{name: "state", title: "State", class: "state"}, func(n *servedNeed) cell {
		if n.Open {
			return cell{Text: "open", Tone: "warn"}
		}
		return cell{Text: "served", Tone: "good"}
	}},
	column[servedNeed]{head{name: "instance", title: "Instance", class: "name", key: true}, func(n *servedNeed) cell {
		return cell{Text: n.Instance, Link: query{tab: "events", filter: n.Instance}}
	}},
	column[servedNeed]{head{name: "why", title: "Why open, or served where", class: "text"}, func(n *servedNeed) cell {
		switch {
		case n.Open:
			return cell{Text: n.Why}
		case n.By == nil:
			return cell{}
		case n.By.Owner == n.By.Address:
			return cell{Text: "by " + n.By.Owner}
		}
		return cell{Text: "by " + n.By.Owner + " (" + n.By.Address + ")"}
	}},
	column[servedNeed]{head{name: "since", title: "Since", class: "age"}, func(n *servedNeed) cell { return cell{Time: n.Since} }},
	column[servedNeed]{head{name: "module", title: "Module", class: "module"}, func(n *servedNeed) cell { return cell{Text: n.Module} }},
	column[servedNeed]{head{name: "address", title: "Address", class: "code"}, func(n *servedNeed) cell { return cell{Text: n.Address} }},
	column[servedNeed]{head{name: "ports", title: "Fixed ports", class: "code"}, func(n *servedNeed) cell { return cell{Text: n.Ports} }},
	column[servedNeed]{head{name: "source", title: "File", class: "quiet"}, func(n *servedNeed) cell { return cell{Text: n.Source} }},
)

var services = newKind(kind{
	name: "services", title: "Services", noun: "service", nouns: "services", order: "instance",
	none: "Nothing is served.",
},
	func(s *Snapshot) []Service { return s.Services },
	column[Service]{head{name: "state", title: "State", class: "state"}, func(s *Service) cell {
		if s.Unconfirmed {
			return cell{Text: "unconfirmed", Tone: "warn"}
		}
		return cell{Text: "served", Tone: "good"}
	}},
	column[Service]{head{name: "instance", title: "Instance", class: "name", key: true}, func(s *Service) cell {
		return cell{Text: s.Instance, Link: query{tab: "events", filter: s.Instance}}
	}},
	column[Service]{head{name: "owner", title: "Machine"}, func(s *Service) cell { return cell{Text: s.Owner} }},
	column[Service]{head{name: "since", title: "Since", class: "age"}, func(s *Service) cell { return cell{Time: s.Since} }},
	column[Service]{head{name: "module", title: "Module", class: "module"}, func(s *Service) cell { return cell{Text: s.Module} }},
	column[Service]{head{name: "address", title: "Address", class: "code"}, func(s *Service) cell { return cell{Text: s.Address} }},
	column[Service]{head{name: "tcp", title: "TCP", class: "number"}, func(s *Service) cell { return cell{Text: port(s.TCP)} }},
	column[Service]{head{name: "http", title: "HTTP", class: "number"}, func(s *Service) cell { return cell{Text: port(s.HTTP)} }},
	column[Service]{head{name: "ws", title: "WS", class: "number"}, func(s *Service) cell { return cell{Text: port(s.WS)} }},
)

func port(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

var machines = newKind(kind{
	name: "machines", title: "Machines", noun: "machine", nouns: "machines", order: "state",
	none: "No agent is connected. Start agentd on a machine whose lanmanageraddress is this one; subnets says from where it may come.",
},
	func(s *Snapshot) []Machine { return s.Machines },
	column[Machine]{head{name: "state", title: "State", class: "state"}, func(m *Machine) cell {
		if m.Connected {
			return cell{Text: "connected", Tone: "good"}
		}
		return cell{Text: "away", Tone: "bad"}
	}},
	column[Machine]{head{name: "name", title: "Machine", class: "name", key: true}, func(m *Machine) cell {
		return cell{Text: m.Name, Link: query{tab: "events", filter: m.Name}}
	}},
	column[Machine]{head{name: "address", title: "Address", class: "code", key: true}, func(m *Machine) cell { return cell{Text: m.Address} }},
	column[Machine]{head{name: "since", title: "Since", class: "age"}, func(m *Machine) cell { return cell{Time: m.Since} }},
	column[Machine]{head{name: "services", title: "Services", class: "number"}, func(m *Machine) cell {
		return cell{Text: count(m.Services), Link: query{tab: "services", filter: m.Address}}
	}},
	column[Machine]{head{name: "kind", title: "Agent"}, func(m *Machine) cell { return cell{Text: m.Kind} }},
	column[Machine]{head{name: "id", title: "Id", class: "code", key: true}, func(m *Machine) cell { return cell{Text: m.ID} }},
	column[Machine]{head{name: "envelopes", title: "Envelopes"}, func(m *Machine) cell { return cell{Text: strings.Join(m.Envelopes, ", ")} }},
	column[Machine]{head{name: "sessions", title: "Sessions", class: "number"}, func(m *Machine) cell { return cell{Text: count(m.Sessions)} }},
)

var nat = newKind(kind{
	name: "nat", title: "NAT", noun: "NAT record", nouns: "NAT records", order: "iaddress",
	none: "There are no NAT records. Write them into the file .allexlanmanager/nat: they are taken up at once.",
},
	func(s *Snapshot) []NAT { return s.NAT },
	column[NAT]{head{name: "iaddress", title: "Inside address", class: "name", key: true}, func(n *NAT) cell { return cell{Text: n.IAddress} }},
	column[NAT]{head{name: "iport", title: "Inside port", class: "number", key: true}, func(n *NAT) cell { return cell{Text: n.IPort} }},
	column[NAT]{head{name: "eaddress", title: "Outside address", class: "code"}, func(n *NAT) cell { return cell{Text: n.EAddress} }},
	column[NAT]{head{name: "eport", title: "Outside port", class: "number"}, func(n *NAT) cell { return cell{Text: n.EPort} }},
)

var events = newKind(kind{
	name: "events", title: "Events", noun: "event", nouns: "events", order: "-time",
	none: "Nothing has happened yet.",
},
	func(s *Snapshot) []Event {
		newestFirst := slices.Clone(s.Events) // so are those of the same time
		slices.Reverse(newestFirst)
		return newestFirst
	},
	column[Event]{head{name: "time", title: "Time", class: "age", key: true}, func(e *Event) cell {
		return cell{Text: e.Time.Format(time.DateTime), Time: e.Time}
	}},
	column[Event]{head{name: "kind", title: "Event", class: "state", key: true}, func(e *Event) cell {
		return cell{Text: e.Kind, Tone: e.tone()}
	}},
	column[Event]{head{name: "subject", title: "Of", class: "name", key: true}, func(e *Event) cell {
		return cell{Text: e.Subject, Link: query{tab: "events", filter: e.Subject}}
	}},
	column[Event]{head{name: "text", title: "Reason", class: "text"}, func(e *Event) cell { return cell{Text: e.Text} }},
)

func (e *Event) tone() string {
	switch e.Kind {
	case ServiceDown, ServiceFails, Refused:
		return "bad"
	case BidTakenBack, File, NeedOpen:
		return "warn"
	case ServiceUp:
		return "good"
	}
	return "quiet"
}
