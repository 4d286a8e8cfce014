package port

import (
	"fmt"
	"os"
	"strings"
)

// ephemeral is the range of ports for outgoing connections, and those of them
// that the administrator keeps from that use. Without /proc nothing is known and
// the range is empty.
func ephemeral() (first, last int, kept *set) {
	const dir = "/proc/sys/net/ipv4/"
	text, err := os.ReadFile(dir + "ip_local_port_range")
	if err != nil {
		return 0, -1, new(set)
	}
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil {
		return 0, -1, new(set)
	}
	list, _ := os.ReadFile(dir + "ip_local_reserved_ports") // absent: none
	return first, last, parseList(string(list))
}

// parseList reads the kernel's list of ports, such as "8080,9000-9100".
func parseList(list string) *set {
	var s set
	for item := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		var from, to int
		n, _ := fmt.Sscanf(item, "%d-%d", &from, &to)
		if n == 1 {
			to = from
		}
		for p := max(from, 1); n > 0 && p <= min(to, maxPort); p++ {
			s.add(p)
		}
	}
	return &s
}

// keepCure is how to keep ports from the system's use.
func keepCure(from, to int) string {
	return fmt.Sprintf("add %d-%d to the sysctl net.ipv4.ip_local_reserved_ports", from, to)
}
