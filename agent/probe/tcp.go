package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
)

// maxAnswer is how much of an answer is looked at, in bytes.
const maxAnswer = 4 << 10

// TCP asks whether a TCP port on host (an address) accepts, takes send, and
// answers with what expect matches, by the right hands. An empty send and a nil
// expect ask no such thing.
func TCP(host string, port int, send string, expect *regexp.Regexp, whose Owner) Question {
	address := net.JoinHostPort(host, strconv.Itoa(port))
	return Question{"tcp " + address + " does not answer as it should", func(ctx context.Context) error {
		err := with(ctx, host, port, func(conn connection) error { return talk(conn, send, expect) })
		if err != nil {
			return err
		}
		return whose(port)
	}}
}

func talk(conn connection, send string, expect *regexp.Regexp) error {
	if _, err := io.WriteString(conn, send); err != nil || expect == nil {
		return err
	}
	var answer []byte
	for len(answer) < maxAnswer {
		buf := make([]byte, maxAnswer-len(answer))
		n, err := conn.Read(buf)
		answer = append(answer, buf[:n]...)
		switch {
		case (err == nil || errors.Is(err, io.EOF)) && expect.Match(answer):
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("it answers %.200q and closes, which does not match %q", answer, expect)
		case err != nil && len(answer) > 0:
			return fmt.Errorf("it answers %.200q, which does not match %q, and no more (%w)", answer, expect, err)
		case err != nil:
			return err
		}
	}
	return fmt.Errorf("it answers %.200q and more, which does not match %q", answer, expect)
}
