package page

// moment is a snapshot with what the page derives from it. All viewers share it.
type moment struct {
	*Snapshot
	tables      map[string]*table // by the names of their kinds
	Open        int               // needs
	unconfirmed int               // services
	away        int               // machines
}

func newMoment(s *Snapshot) *moment {
	m := &moment{Snapshot: s, tables: make(map[string]*table, len(kinds))}
	for _, n := range s.Needs {
		if n.Open {
			m.Open++
		}
	}
	for _, service := range s.Services {
		if service.Unconfirmed {
			m.unconfirmed++
		}
	}
	for _, machine := range s.Machines {
		if !machine.Connected {
			m.away++
		}
	}
	for _, k := range kinds {
		m.tables[k.name] = &table{kind: k, rows: k.rows(s)}
	}
	return m
}

// lately is how many downs the page shows beside every table.
const lately = 6

// downs are the newest events that an administrator should know of, the newest first.
func (m *moment) downs() []Event {
	var downs []Event
	for i := len(m.Events) - 1; i >= 0 && len(downs) < lately; i-- {
		switch m.Events[i].Kind {
		case ServiceDown, ServiceFails, BidTakenBack, Refused:
			downs = append(downs, m.Events[i])
		}
	}
	return downs
}
