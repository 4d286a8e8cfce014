package table

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// operand is a value that has been decoded, to be compared with many.
type operand struct {
	raw              json.RawMessage
	text             string
	number           float64
	isText, isNumber bool
}

func operandOf(value json.RawMessage) operand {
	o := operand{raw: value}
	if o.number, o.isNumber = rawjson.Number(value); !o.isNumber {
		o.text, o.isText = rawjson.String(value)
	}
	return o
}

// is says whether the value is this one.
func (o *operand) is(value json.RawMessage) bool {
	switch {
	case value == nil:
		return false
	case bytes.Equal(o.raw, value):
		return true
	case o.isNumber:
		n, ok := rawjson.Number(value)
		return ok && n == o.number
	case o.isText:
		return rawjson.Is(value, o.text)
	}
	return false
}

// same says whether two values are the same scalar, or the same text. A field
// that there is not is the same as nothing.
func (o *operand) same(p *operand) bool {
	if o.raw == nil || p.raw == nil {
		return false
	}
	return o.isNumber && p.isNumber && o.number == p.number ||
		o.isText && p.isText && o.text == p.text || bytes.Equal(o.raw, p.raw)
}

// compare orders two strings as such and all else as numbers, as JavaScript
// does; ok is false where there is no order.
func (o *operand) compare(p *operand) (order int, ok bool) {
	if o.isText && p.isText {
		return cmp.Compare(o.text, p.text), true
	}
	a, b := o.asNumber(), p.asNumber()
	return cmp.Compare(a, b), !math.IsNaN(a) && !math.IsNaN(b)
}

// asNumber is the number that JavaScript would see, NaN if none.
func (o *operand) asNumber() float64 {
	switch {
	case o.isNumber:
		return o.number
	case o.isText:
		text := strings.TrimSpace(o.text)
		if text == "" {
			return 0
		}
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			return n
		}
	case string(o.raw) == "true":
		return 1
	case string(o.raw) == "null", string(o.raw) == "false":
		return 0
	}
	return math.NaN()
}

// bits are the lowest 32 of the whole number, none if it is no number.
func (o *operand) bits() uint32 {
	n := o.asNumber()
	if math.IsNaN(n) || math.IsInf(n, 0) {
		return 0
	}
	return uint32(int64(math.Mod(math.Trunc(n), 1<<32)))
}
