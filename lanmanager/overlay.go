package lanmanager

import (
	"encoding/json"
	"maps"
)

// extend lays one layer over another, as the original does: objects are merged,
// everything else is replaced, by null too. It changes neither.
func extend(under, over fields) fields {
	merged := make(fields, len(under)+len(over))
	maps.Copy(merged, under)
	for name, value := range over {
		below, isObject := inner(merged[name])
		above, isObjectToo := inner(value)
		if isObject && isObjectToo {
			value = marshal(extend(below, above))
		}
		merged[name] = value
	}
	return merged
}

// inner returns the fields of a value, if that is an object.
func inner(value json.RawMessage) (fields, bool) {
	if len(value) == 0 || value[0] != '{' {
		return nil, false
	}
	var object fields
	err := json.Unmarshal(value, &object)
	return object, err == nil
}
