package probe

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Owner tells whether a port on which somebody accepts is in the right hands; the
// error says in whose it is.
type Owner func(port int) error

// Port asks whether one of the TCP ports on host (an address) accepts a
// connection, which is closed at once, and is in the right hands.
func Port(host string, ports []int, whose Owner) Question {
	no := fmt.Sprintf("nothing accepts on %s port %s", host, list(ports))
	return Question{no, func(ctx context.Context) error {
		var refusal error
		for _, port := range ports {
			err := connect(ctx, host, port)
			if err == nil {
				err = whose(port)
			}
			if err == nil {
				return nil
			}
			if refusal == nil || !timeout(err) {
				refusal = err
			}
		}
		return refusal
	}}
}

// Hands asks whether all ports on which somebody listens are in the right hands.
func Hands(ports []int, whose Owner) Question {
	return Question{"a port is in wrong hands", func(context.Context) error {
		for _, port := range ports {
			if err := whose(port); err != nil {
				return err
			}
		}
		return nil
	}}
}

func list(ports []int) string {
	s := make([]string, len(ports))
	for i, port := range ports {
		s[i] = strconv.Itoa(port)
	}
	return strings.Join(s, ", ")
}
