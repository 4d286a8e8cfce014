package rawjson

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"unicode/utf8"
)

// The functions below take values that have been checked.

// IsNull says whether value is null, or not there at all.
func IsNull(value []byte) bool { return len(value) == 0 || value[0] == 'n' }

// String decodes a value if it is a string.
func String(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	return string(unquote(value)), true
}

// Is says whether a value is the string s.
func Is(value []byte, s string) bool {
	return len(value) >= 2 && value[0] == '"' && string(unquote(value)) == s
}

// Number decodes a value if it is a number that a float64 can hold.
func Number(value []byte) (float64, bool) {
	if len(value) == 0 || value[0] != '-' && (value[0] < '0' || value[0] > '9') {
		return 0, false
	}
	n, err := strconv.ParseFloat(string(value), 64)
	return n, err == nil
}

// Int decodes a value if it is a whole number of at most 53 bits.
func Int(value []byte) (int, bool) {
	n, ok := Number(value)
	if !ok || n != math.Trunc(n) || math.Abs(n) > 1<<53 {
		return 0, false
	}
	return int(n), true
}

// AppendString appends s as a JSON string.
func AppendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string always has a JSON form
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// unquote decodes a JSON string that has been checked. It returns a slice of
// it where nothing has to be changed.
func unquote(quoted []byte) []byte {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return inner
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // it has been checked
	return []byte(s)
}
