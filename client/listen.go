package client

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Listen opens the child's port of a protocol on all addresses: the socket that
// the agent passed, if it passed one; else the port that it gave, which it holds
// until then; else any that is free. The agent learns by Up which one it is.
func (c *Child) Listen(protocol Protocol) (net.Listener, error) {
	given := c.Spawn.Ports.of(protocol)
	if given == nil {
		return nil, fmt.Errorf("there is no protocol %q: it is tcp, http or ws", protocol)
	}
	l, err := passed(protocol)
	if l == nil && err == nil {
		l, err = net.Listen("tcp", ":"+strconv.Itoa(*given))
	}
	if err != nil {
		return nil, fmt.Errorf("the %s port of the child can not be opened: %w", protocol, err)
	}
	if address, ok := l.Addr().(*net.TCPAddr); ok {
		c.Opened(protocol, address.Port)
	}
	return l, nil
}

// Opened takes note of a port that the child has opened by other means than
// Listen. The agent learns of it by the next Up.
func (c *Child) Opened(protocol Protocol, port int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.opened.of(protocol); p != nil {
		*p = port
	}
}

// firstPassed is the descriptor of the first passed socket, behind the standard
// three.
const firstPassed = 3

// passed is the listener of a protocol that whoever started us had opened for us
// (LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES, as of systemd); nil if there is
// none.
func passed(protocol Protocol) (net.Listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil // none, or meant for the process that started us
	}
	n := slices.Index(strings.Split(os.Getenv("LISTEN_FDNAMES"), ":"), string(protocol))
	if count, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err != nil || n < 0 || n >= count {
		return nil, nil
	}
	f := os.NewFile(uintptr(firstPassed+n), string(protocol))
	defer f.Close() // FileListener has one of its own, which no child of ours inherits
	return net.FileListener(f)
}
