package table

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/allexgo/machine-agent/lan/internal/rawjson"
)

// cidr chooses by addresses: the record's and one of the value's have some in
// common. That is what the original means with a list, which are ranges, and
// with a single value, which is an address to be found in the record's range.
func (c *compiler) cidr(d descriptor) (func(json.RawMessage) bool, error) {
	texts := []json.RawMessage{d.value}
	if len(d.value) > 0 && d.value[0] == '[' {
		var err error
		if texts, err = c.list(d); err != nil {
			return nil, err
		}
	}
	ranges := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		var ok bool
		if ranges[i], ok = addresses(text); !ok {
			return nil, fmt.Errorf("%.50s is neither an address nor a range (such as 10.0.0.0/8)", orNull(text))
		}
	}
	return func(value json.RawMessage) bool {
		r, ok := addresses(value)
		return ok && slices.ContainsFunc(ranges, r.Overlaps)
	}, nil
}

// addresses reads an address, or a range with whatever host bits. Short bases of
// IPv4 stand for those with zeroes behind.
func addresses(value json.RawMessage) (netip.Prefix, bool) {
	s, _ := rawjson.String(value)
	base, bits, isRange := strings.Cut(s, "/")
	if !strings.Contains(base, ":") {
		base += strings.Repeat(".0", max(0, 3-strings.Count(base, ".")))
	}
	address, err := netip.ParseAddr(base)
	if err != nil {
		return netip.Prefix{}, false
	}
	outer := address.BitLen() - address.Unmap().BitLen() // IPv4 within IPv6
	address = address.Unmap().WithZone("")
	n := uint64(address.BitLen() + outer)
	if isRange {
		if n, err = strconv.ParseUint(bits, 10, 8); err != nil {
			return netip.Prefix{}, false
		}
	}
	r, err := address.Prefix(int(n) - outer)
	return r, err == nil
}
