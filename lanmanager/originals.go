package lanmanager

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/allexgo/machine-agent/lan/table"
)

// originals are the needs as they were asked for: by the file needs, and over
// that by addNeed and removeNeed, which the file needs.runtime keeps. An entry
// of the second extends that of the same name in the first, so what holds now
// is always what holds after a restart.
type originals struct {
	names   []string // all of them, in the order in which they came
	static  map[string]fields
	runtime map[string]fields
	records map[string]table.Record // ready to be opened
}

const maxName = 255 // bytes of an instancename

// removed marks an entry of needs.runtime that takes away the need of that name
// in needs. The original knows no such mark: it drops the field and has the need
// again, as it would without us.
const removed = "removed"

func newOriginals() *originals {
	return &originals{static: map[string]fields{}, runtime: map[string]fields{}, records: map[string]table.Record{}}
}

// addStatic and addRuntime take an entry of the file needs, or needs.runtime.
func (o *originals) addStatic(text json.RawMessage) error  { return o.addEntry(o.static, text) }
func (o *originals) addRuntime(text json.RawMessage) error { return o.addEntry(o.runtime, text) }

func (o *originals) addEntry(to map[string]fields, text json.RawMessage) error {
	var need fields
	if json.Unmarshal(text, &need) != nil || need.text("instancename") == "" {
		return fmt.Errorf("a need is an object with an instancename, not %s", excerpt(text))
	}
	return o.set(to, need)
}

// add makes need, which has an instancename, the original of that name.
func (o *originals) add(need fields) error { return o.set(o.runtime, need) }

func (o *originals) set(to map[string]fields, need fields) error {
	name := need.text("instancename")
	if len(name) > maxName {
		return fmt.Errorf("need %.40q...: a name has at most %d bytes", name, maxName)
	}
	own := fields{}
	for field, value := range need { // which is a slice of all that came with it
		own[field] = bytes.Clone(value)
	}
	_, isStatic := o.static[name]
	_, isRuntime := o.runtime[name]
	before := to[name]
	to[name] = own
	if err := o.settle(name); err != nil {
		if to[name] = before; before == nil {
			delete(to, name)
		}
		return err
	}
	if !isStatic && !isRuntime {
		o.names = append(o.names, name)
	}
	return nil
}

// remove forgets the original of that name.
func (o *originals) remove(name string) {
	delete(o.records, name)
	delete(o.runtime, name)
	if need, ok := o.static[name]; ok {
		mark := maps.Clone(need)
		mark[removed] = json.RawMessage("true")
		o.runtime[name] = mark
		return
	}
	o.names = slices.DeleteFunc(o.names, func(other string) bool { return other == name })
}

// record returns the need as it goes on the table, and whether it is wanted.
func (o *originals) record(name string) (table.Record, bool) {
	record, ok := o.records[name]
	return record, ok
}

// settle makes the record of a name from what there is of it.
func (o *originals) settle(name string) error {
	need := fields{}
	maps.Copy(need, o.static[name])
	maps.Copy(need, o.runtime[name])
	if string(need[removed]) == "true" {
		delete(o.records, name)
		return nil
	}
	delete(need, "pid") // an open need has neither
	delete(need, "closed")
	need["strategies"] = withAdmitted(need["strategies"])
	record, err := table.Needs.Parse(marshal(need))
	if err != nil {
		return fmt.Errorf("need %q: %w", name, err)
	}
	o.records[name] = record
	return nil
}

// admitted are the peers that a served module has to let in by their address,
// unless the need itself says more: those that the LAN manager admits.
var admitted = [...]peerRole{{"127.0.0.1/32", role}, {"127.0.0.0/8", role}}

type peerRole struct {
	IP   string `json:"ip"`
	Role string `json:"role"`
}

// withAdmitted adds admitted to strategies.ip.
func withAdmitted(strategies json.RawMessage) json.RawMessage {
	var all fields
	if json.Unmarshal(strategies, &all) != nil || all == nil {
		all = fields{}
	}
	var own []json.RawMessage
	if json.Unmarshal(all["ip"], &own) != nil {
		own = nil
	}
	for _, pair := range admitted {
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
