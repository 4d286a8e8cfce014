package port

import (
	"iter"
	"math/bits"

	"github.com/allexgo/machine-agent/lan/table"
)

// of is the place of protocol p in ports.
func of(ports *table.Ports, p Protocol) *int {
	switch p {
	case TCP:
		return &ports.TCP
	case HTTP:
		return &ports.HTTP
	default:
		return &ports.WS
	}
}

// each goes over the ports that there are.
func each(ports table.Ports) iter.Seq2[Protocol, int] {
	return func(yield func(Protocol, int) bool) {
		for p := TCP; p <= WS; p++ {
			if n := *of(&ports, p); n != 0 && !yield(p, n) {
				return
			}
		}
	}
}

// set is a set of port numbers in which the next absent one is found quickly:
// a search behind a thousand leases looks at sixteen words.
type set [(maxPort + 1) / 64]uint64

func (s *set) add(n int)      { s[n/64] |= 1 << (n % 64) }
func (s *set) remove(n int)   { s[n/64] &^= 1 << (n % 64) }
func (s *set) has(n int) bool { return s[n/64]&(1<<(n%64)) != 0 }

// next is the smallest number from n on that is not in the set, maxPort+1 if
// there is none.
func (s *set) next(n int) int {
	for n <= maxPort {
		if absent := ^s[n/64] >> (n % 64); absent != 0 {
			return n + bits.TrailingZeros64(absent)
		}
		n = (n/64 + 1) * 64
	}
	return maxPort + 1
}
