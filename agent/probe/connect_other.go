//go:build !linux

package probe

import "net/netip"

// ask leaves it to a dial.
func ask(netip.AddrPort) (settled bool, err error) { return false, nil }
