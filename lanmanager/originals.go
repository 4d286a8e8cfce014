package lanmanager

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/allexgo/machine-agent/lan/table"
)

// originals are the needs as they were asked for: by the file needs, which
// needs.overlay extends, and over that by addNeed and removeNeed, which the file
// needs.runtime keeps. What holds now is always what holds after a restart.
type originals struct {
	admitted []peerRole // added to the strategies of each

	names    []string          // all of them: those of needs, then the others, in the order in which they came
	static   map[string]fields // needs with needs.overlay
	overlaid map[string]bool   // which of them needs.overlay extends
	runtime  map[string]fields
	records  map[string]table.Record // ready to be opened

	// What was removed since needs.runtime was found broken, and so could not be
	// taken out of it; nil: it was not.
	missed map[string]bool
}

const maxName = 255 // bytes of an instancename

// removed marks an entry of needs.runtime that takes away the need of that name
// in needs. The original knows no such mark: it drops the field and has the need
// again, as it would without us.
const removed = "removed"

// peerRole is an address or network whose peers a module has to let in, and as
// whom.
type peerRole struct {
	IP   string `json:"ip"`
	Role string `json:"role"`
}

func newOriginals(admitted []peerRole) *originals {
	return &originals{admitted: admitted, static: map[string]fields{}, overlaid: map[string]bool{},
		runtime: map[string]fields{}, records: map[string]table.Record{}}
}

// replace takes in what needs and needs.overlay say now. It returns the names
// that appeared, or vanished, or of which the content changed. Only those cost
// more than a comparison.
func (o *originals) replace(static, overlay []fields) (changed []string) {
	before, old := o.names, o.static
	o.names, o.static, o.overlaid = nil, make(map[string]fields, len(static)), map[string]bool{}
	for _, need := range static {
		name := need.name()
		o.names = append(o.names, name)
		o.static[name] = need
	}
	for _, need := range overlay {
		if name := need.name(); o.static[name] != nil {
			o.static[name] = extend(o.static[name], need)
			o.overlaid[name] = true
		}
	}
	var touched, others []string
	for _, name := range before {
		if o.static[name] != nil {
			continue
		}
		if old[name] != nil {
			touched = append(touched, name)
		}
		if o.runtime[name] != nil {
			others = append(others, name)
		}
	}
	for _, name := range o.names {
		if !maps.EqualFunc(old[name], o.static[name], sameText) {
			touched = append(touched, name)
		}
	}
	o.names = append(o.names, others...)
	return o.settleAll(touched)
}

func sameText(a, b json.RawMessage) bool { return bytes.Equal(a, b) }

// adopt takes in entries of needs.runtime, and returns the names that appeared
// or of which the content changed. What was added or removed already is newer.
func (o *originals) adopt(entries []fields) (changed []string) {
	var touched []string
	for _, need := range entries {
		name := need.name()
		if o.runtime[name] != nil || o.missed[name] {
			continue
		}
		if o.static[name] == nil {
			o.names = append(o.names, name)
		}
		o.runtime[name] = need
		touched = append(touched, name)
	}
	o.missed = nil
	return o.settleAll(touched)
}

// settleAll makes the records of names anew, and returns those names of which
// the record is another now.
func (o *originals) settleAll(names []string) (changed []string) {
	for _, name := range names {
		was, wasWanted := o.records[name]
		unknown := o.static[name] == nil && o.runtime[name] == nil
		if unknown || o.settle(name) != nil { // which can not be: it was checked when it was read
			delete(o.records, name)
		}
		if record, wanted := o.records[name]; wanted != wasWanted || !record.Equal(was) {
			changed = append(changed, name)
		}
	}
	return changed
}

// add makes need, which has an instancename, the original of that name, over
// what needs says of it.
func (o *originals) add(need fields) error {
	name := need.name()
	if err := checkName(name); err != nil {
		return err
	}
	own := fields{}
	for field, value := range need { // which is a slice of all that came with it
		own[field] = bytes.Clone(value)
	}
	before, known := o.runtime[name]
	o.runtime[name] = own
	if err := o.settle(name); err != nil {
		if o.runtime[name] = before; !known {
			delete(o.runtime, name)
		}
		return err
	}
	if !known && o.static[name] == nil {
		o.names = append(o.names, name)
	}
	return nil
}

func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("need %.40q...: a name has at most %d bytes", name, maxName)
	}
	return nil
}

// remove forgets the original of that name.
func (o *originals) remove(name string) {
	delete(o.records, name)
	if need, ok := o.static[name]; ok {
		mark := maps.Clone(need)
		mark[removed] = json.RawMessage("true")
		o.runtime[name] = mark
		return
	}
	if o.missed != nil {
		o.missed[name] = true
	}
	if _, ok := o.runtime[name]; ok {
		delete(o.runtime, name)
		o.names = slices.DeleteFunc(o.names, func(other string) bool { return other == name })
	}
}

// record returns the need as it goes on the table, and whether it is wanted.
func (o *originals) record(name string) (table.Record, bool) {
	record, ok := o.records[name]
	return record, ok
}

// source is the file that said the last word on a need; "" of an unknown one.
func (o *originals) source(name string) string {
	switch {
	case o.runtime[name] != nil:
		return "needs.runtime"
	case o.overlaid[name]:
		return "needs.overlay"
	case o.static[name] != nil:
		return "needs"
	}
	return ""
}

// settle makes the record of a name from what there is of it.
func (o *originals) settle(name string) error {
	runtime := o.runtime[name]
	if string(runtime[removed]) == "true" {
		delete(o.records, name)
		return nil
	}
	need := extend(o.static[name], runtime)
	delete(need, "pid") // an open need has neither
	delete(need, "closed")
	need["strategies"] = o.withAdmitted(need["strategies"])
	record, err := table.Needs.Parse(marshal(need))
	if err != nil {
		return fmt.Errorf("need %q: %w", name, err)
	}
	o.records[name] = record
	return nil
}

// withAdmitted adds admitted to strategies.ip.
func (o *originals) withAdmitted(strategies json.RawMessage) json.RawMessage {
	all, ok := inner(strategies)
	if !ok {
		all = fields{}
	}
	var own []json.RawMessage
	if json.Unmarshal(all["ip"], &own) != nil {
		own = nil
	}
	for _, pair := range o.admitted {
		if !slices.ContainsFunc(own, func(text json.RawMessage) bool {
			var other peerRole
			return json.Unmarshal(text, &other) == nil && other == pair
		}) {
			own = append(own, marshal(pair))
		}
	}
	all["ip"] = marshal(own)
	return marshal(all)
}

// entries are those of needs.runtime.
func (o *originals) entries() []fields {
	var entries []fields
	for _, name := range o.names {
		if need, ok := o.runtime[name]; ok {
			entries = append(entries, need)
		}
	}
	return entries
}
