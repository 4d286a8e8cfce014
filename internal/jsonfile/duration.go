package jsonfile

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time span that is written as a JSON string such as "10s" or
// "1m30s" (the units of time.ParseDuration).
type Duration time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err == nil {
		if span, err := time.ParseDuration(text); err == nil {
			*d = Duration(span)
			return nil
		}
	}
	return fmt.Errorf("found %.40s, wanted a time span such as \"10s\" or \"1m30s\"", data)
}

// MarshalJSON implements json.Marshaler.
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(d).String())
}
