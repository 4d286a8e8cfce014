package jsonfile

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes that is written as a JSON number, or as a string with
// a unit of 1024s such as "64MiB".
type Size int64

// UnmarshalJSON implements json.Unmarshaler.
func (s *Size) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		text = string(data)
	}
	n, err := ParseSize(text)
	if err != nil || n > math.MaxInt64 {
		return fmt.Errorf("found %.40s, wanted a number of bytes such as 1024 or \"64MiB\"", data)
	}
	*s = Size(n)
	return nil
}

// ParseSize reads a whole number, which may have a unit: KiB, MiB, GiB or TiB.
func ParseSize(text string) (uint64, error) {
	digits, shift := text, 0
	for unit, bits := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40} {
		if before, ok := strings.CutSuffix(text, unit); ok {
			digits, shift = before, bits
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err == nil && n<<shift>>shift != n {
		err = strconv.ErrRange
	}
	return n << shift, err
}
