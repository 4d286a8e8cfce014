package table

import (
	"encoding/json"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// items are the texts of one change, made when the first view wants them and
// shared by all that see the same fields.
type items struct {
	number              uint64 // of the row
	before, after       Record // one of them may be zero
	create, change, end json.RawMessage
	noChange            bool // that anybody with the usual fields could see
}

func (i *items) record() Record {
	if i.after.IsZero() {
		return i.before
	}
	return i.after
}

// creation is ["c", record]. Fields nil are the usual ones.
func (i *items) creation(fields []int) json.RawMessage {
	if fields != nil {
		return creation(i.after, fields)
	}
	if i.create == nil {
		i.create = creation(i.after, nil)
	}
	return i.create
}

// update is ["u", filter, changed fields], nil if nobody could see a change.
func (i *items) update(fields []int) json.RawMessage {
	usual := fields == nil
	if usual {
		if i.change != nil || i.noChange {
			return i.change
		}
		fields = i.after.schema.visible
	}
	fields = changed(i.before, i.after, fields)
	if len(fields) == 0 {
		i.noChange = i.noChange || usual
		return nil
	}
	item := append(i.after.appendKeyFilter([]byte(`["u",`)), ',')
	item = append(i.after.appendFields(item, fields), ']')
	if usual {
		i.change = item
	}
	return item
}

// deletion is ["d", filter].
func (i *items) deletion() json.RawMessage {
	if i.end == nil {
		i.end = deletion(i.record().appendKeyFilter(nil))
	}
	return i.end
}

func creation(r Record, fields []int) json.RawMessage {
	return append(r.appendVisible(withPrefix(`["c",`, r), fields), ']')
}

// withPrefix begins an item that goes on with a record.
func withPrefix(prefix string, r Record) []byte {
	return append(make([]byte, 0, len(prefix)+len(r.text)+1), prefix...)
}

func deletion(filter []byte) json.RawMessage {
	return append(append([]byte(`["d",`), filter...), ']')
}

// mark is an item with nothing but an id.
func mark(kind, id string) json.RawMessage {
	item := append(append([]byte(`["`), kind...), `",`...)
	return append(rawjson.AppendString(item, id), ']')
}

// appendVisible appends the record's object with the given fields, or the usual
// ones.
func (r Record) appendVisible(dst []byte, fields []int) []byte {
	if fields != nil {
		return r.appendFields(dst, fields)
	}
	if len(r.schema.visible) == len(r.schema.Fields) {
		return append(dst, r.text...)
	}
	return r.appendFields(dst, r.schema.visible)
}

// appendKeyFilter appends the filter that chooses the record alone.
func (r Record) appendKeyFilter(dst []byte) []byte {
	names := r.schema.Key
	if len(names) == 1 {
		return appendEq(dst, names[0], r.Get(names[0]))
	}
	dst = append(dst, `{"op":"and","filters":[`...)
	for n, name := range names {
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = appendEq(dst, name, r.Get(name))
	}
	return append(dst, `]}`...)
}
