package port

import "fmt"

// Check warns of ranges of which the system may give ports to outgoing
// connections, by the system's present settings.
func Check(ranges ...Range) (warnings []string) {
	first, last, kept := ephemeral()
	for _, r := range ranges {
		if w := overlap(r, first, last, kept); w != "" {
			warnings = append(warnings, w)
		}
	}
	return warnings
}

// overlap is the warning for a range against the system's ports first to last,
// less those that are kept; empty if they have none in common.
func overlap(r Range, first, last int, kept *set) string {
	from, to := max(r.Start, first), min(r.last(), last)
	for from <= to && kept.has(from) {
		from++
	}
	for from <= to && kept.has(to) {
		to--
	}
	if from > to {
		return ""
	}
	return fmt.Sprintf("the range %s overlaps the ports %d-%d that this system gives to outgoing connections;"+
		" such a connection can hold a port of the range for as long as it lasts, and the service that wants it"+
		" gets another one or must wait; move portrangestart.%s, or %s",
		r, first, last, r.Protocol, keepCure(from, to))
}
