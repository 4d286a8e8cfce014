package lanmanager

import (
	"encoding/json"

	"github.com/allexgo/machine-agent/lan/table"
	"github.com/allexgo/machine-agent/lanmanager/page"
)

// read takes in what the files hold at the start. Nothing in them stops the LAN
// manager.
func (l *lan) read(files *files) {
	c, problems := files.load()
	entries, p := files.loadRuntime()
	l.originals.replace(c.static, c.overlay)
	l.originals.adopt(entries)
	if p.err != nil {
		l.saver.broken, l.originals.missed = p.err, map[string]bool{}
	}
	l.takeNATs(c.nats)
	for _, p := range append(problems, p) {
		l.report(p)
	}
}

// reload takes in what the files hold now. New needs open and those that are
// gone close; an open one that changed is opened anew. A service runs on: what
// its need says now counts when it is down.
func (l *lan) reload(c contents, problems []problem) {
	l.reopen(l.originals.replace(c.static, c.overlay))
	l.takeNATs(c.nats)
	for _, p := range problems {
		l.report(p)
	}
}

// reopen has the open needs follow their originals.
func (l *lan) reopen(names []string) {
	for _, name := range names {
		n := l.open[name]
		if n != nil {
			l.closeNeed(n)
		}
		switch opened := l.openNeed(name); {
		case opened && n == nil:
			l.note(page.NeedOpen, name, "its files have it now")
		case opened:
			l.note(page.NeedOpen, name, "its files changed it")
		case n != nil:
			l.note(page.NeedClosed, name, "its files have it no more")
		}
	}
}

// takeNATs makes the table of the NATs what the file says.
func (l *lan) takeNATs(nats []table.Record) {
	listed := map[string]bool{}
	for _, record := range nats {
		listed[record.Key()] = true
		if err := l.nats.Put(record); err != nil {
			l.log.Error("addresses are not translated", "entry", record.Key(), "error", err)
		}
	}
	for key, record := range l.nats.All() {
		if listed[key] {
			continue
		}
		filter, err := only(record)
		if err != nil {
			l.log.Error("an entry of nat stays until the end", "entry", key, "error", err)
			continue
		}
		l.nats.Delete(filter)
	}
}

// only is the filter that chooses a record of the NATs.
func only(record table.Record) (table.Filter, error) {
	part := func(field string) json.RawMessage {
		return marshal(map[string]any{"op": "eq", "field": field, "value": record.Get(field)})
	}
	return table.ParseFilter(table.NATs, marshal(map[string]any{
		"op": "and", "filters": []json.RawMessage{part("iaddress"), part("iport")}}))
}
