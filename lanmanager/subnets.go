package lanmanager

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/allexgo/machine-agent/internal/jsonfile"
)

// subnets are the peers that are admitted beyond this machine, as the file of
// that name says.
type subnets struct {
	prefixes []netip.Prefix // masked
	written  []string
	warnings []string
}

// parseSubnets reads the file called name. A bad entry is a mistake, and the
// rest holds.
func parseSubnets(name string, text []byte) (subnets, error) {
	var s subnets
	var entries []string
	doc := jsonfile.Read(name, text, &entries)
	for i, entry := range entries {
		path := fmt.Sprintf("[%d]", i)
		prefix, err := parseSubnet(entry)
		if err != nil {
			doc.Add(path, "%s", err)
			continue
		}
		s.prefixes = append(s.prefixes, prefix.Masked())
		s.written = append(s.written, entry)
		if masked := prefix.Masked(); masked != prefix && prefix.Addr().Is4() {
			s.warnings = append(s.warnings, fmt.Sprintf(
				"%s: %s: %q admits %s to %s; the original admitted %s to %s; write %q if the first is meant",
				name, path, entry, masked.Addr(), last(masked.Addr(), prefix.Bits()),
				prefix.Addr(), last(prefix.Addr(), prefix.Bits()), masked))
		}
	}
	return s, doc.Err()
}

// parseSubnet reads an entry: an address, or a network, of which the base may be
// short as on the original.
func parseSubnet(entry string) (netip.Prefix, error) {
	base, bits, isNetwork := strings.Cut(entry, "/")
	if !isNetwork {
		address, err := netip.ParseAddr(entry)
		if err != nil || address.Is4In6() || address.Zone() != "" {
			return netip.Prefix{}, wantedSubnet(entry)
		}
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	if !strings.Contains(base, ":") {
		for strings.Count(base, ".") < 3 {
			base += ".0"
		}
	}
	prefix, err := netip.ParsePrefix(base + "/" + bits)
	if err != nil || prefix.Addr().Is4In6() {
		return netip.Prefix{}, wantedSubnet(entry)
	}
	return prefix, nil
}

func wantedSubnet(entry string) error {
	return fmt.Errorf("found %.60q, wanted an address or a network such as 192.168.1.0/24 or fd00:1::/64", entry)
}

// last is the last of the 2^(32-bits) addresses from first on.
func last(first netip.Addr, bits int) netip.Addr {
	b := first.As4()
	n := uint64(binary.BigEndian.Uint32(b[:])) + 1<<(32-bits) - 1
	binary.BigEndian.PutUint32(b[:], uint32(min(n, 1<<32-1)))
	return netip.AddrFrom4(b)
}
