package lab

import (
	"fmt"
	"net"
	"strconv"
)

// Ports are handed out in blocks, below those that the system gives to outgoing
// connections by itself.
const (
	firstBlock = 10000
	lastPort   = 31999
	block      = 32
)

// Ports finds n ports in a row that no other lab on this machine has, and keeps
// them until Close. The ports themselves stay free; the first of each block on
// the way is listened on as a sign for others. Nothing else would keep two
// agents apart: each of them only binds what it leases, with SO_REUSEADDR, and
// the system lets several do so.
func (l *Lab) Ports(n int) (first int, err error) {
	var claimed []net.Listener
	for sign := firstBlock; sign+block-1 <= lastPort; sign += block {
		c, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(sign)))
		if err != nil { // begin again behind it
			release(claimed)
			claimed = nil
			continue
		}
		claimed = append(claimed, c)
		if len(claimed)*block > n {
			l.claims = append(l.claims, claimed...)
			return sign - (len(claimed)-1)*block + 1, nil
		}
	}
	release(claimed)
	return 0, fmt.Errorf("there are no %d ports in a row left for a lab between %d and %d", n, firstBlock, lastPort)
}

func release(claimed []net.Listener) {
	for _, c := range claimed {
		c.Close()
	}
}
