package lanmanager

import (
	"encoding/json"
)

// fields are the fields of a JSON object that came from a peer or a file. What
// is of another kind than is asked for counts as absent.
type fields map[string]json.RawMessage

// text is a field that is a string, else "".
func (f fields) text(name string) string {
	var value string
	if json.Unmarshal(f[name], &value) != nil {
		return ""
	}
	return value
}

func (f fields) textOr(name, otherwise string) string {
	if value := f.text(name); value != "" {
		return value
	}
	return otherwise
}

// name is the field that identifies a need.
func (f fields) name() string { return f.text("instancename") }

// port is a field that is the number of a port, else 0.
func (f fields) port(name string) int {
	var value int
	if json.Unmarshal(f[name], &value) != nil || value < 1 || value > 65535 {
		return 0
	}
	return value
}

// marshal is for values that were JSON before or are made of plain Go values,
// of which none can fail.
func marshal(value any) json.RawMessage {
	text, err := json.Marshal(value)
	if err != nil {
		panic("lanmanager: a value that is no JSON: " + err.Error())
	}
	return text
}

// object is an object with one field.
func object(name, value string) json.RawMessage {
	return marshal(map[string]string{name: value})
}
